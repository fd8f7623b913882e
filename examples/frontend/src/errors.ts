/** What can go wrong with a request, by what the page does about it. */

/** The server refused the request; the message is its own, for a person to read. */
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

/** Nobody is signed in any more, or somebody else is. */
export class SessionEndedError extends Error {}
