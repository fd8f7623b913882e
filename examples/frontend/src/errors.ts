/** The kinds of failed requests, which the page handles differently. */

/** The server refused the request. The message comes from the server and is meant for users. */
export class RefusedError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** The server cannot be reached or cannot answer now; the same request may succeed later. */
export class UnavailableError extends Error {
  constructor(
    message: string,
    readonly retryAfterSeconds: number = 0,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The user is no longer signed in, or another user is. */
export class SessionEndedError extends Error {}
