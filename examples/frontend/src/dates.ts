/** Due dates: the user's own wall clock as text, `2026-12-24` or `2026-12-24T17:00`. */

export type Day = string; // YYYY-MM-DD

/** "late" is due today at a time that has passed. */
export type Urgency = "overdue" | "late" | "today" | "later";

const MILLISECONDS_PER_DAY = 86_400_000;

const WEEKDAY = new Intl.DateTimeFormat("en", { weekday: "long", timeZone: "UTC" });
const THIS_YEAR = new Intl.DateTimeFormat(undefined, {
  month: "short",
  day: "numeric",
  timeZone: "UTC",
});
const ANY_YEAR = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });
const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "short", timeZone: "UTC" });

/** Returns the day in the browser's time zone. */
export function dayOf(now: Date): Day {
  const year = String(now.getFullYear()).padStart(4, "0");
  return `${year}-${twoDigits(now.getMonth() + 1)}-${twoDigits(now.getDate())}`;
}

/** Returns the time in the browser's time zone, as HH:MM. */
export function timeOf(now: Date): string {
  return `${twoDigits(now.getHours())}:${twoDigits(now.getMinutes())}`;
}

export function twoDigits(number: number): string {
  return String(number).padStart(2, "0");
}

// Calendar days are counted in UTC, where each has 24 hours.
function atMidnight(day: Day): Date {
  return new Date(`${day}T00:00Z`);
}

export function addDays(day: Day, days: number): Day {
  const moved = new Date(atMidnight(day).getTime() + days * MILLISECONDS_PER_DAY);
  return moved.toISOString().slice(0, 10);
}

/** Returns 0 for Sunday to 6 for Saturday. */
export function weekdayOf(day: Day): number {
  return atMidnight(day).getUTCDay();
}

/** Returns whether the day exists; 30 February does not. */
export function isDay(day: Day): boolean {
  const date = atMidnight(day);
  return !Number.isNaN(date.getTime()) && date.toISOString().slice(0, 10) === day;
}

export function urgencyOf(due: string, now: Date): Urgency {
  const [day = "", time] = due.split("T");
  const today = dayOf(now);
  if (day < today) return "overdue";
  if (day > today) return "later";
  return time && time < timeOf(now) ? "late" : "today";
}

/** Describes a due date, in words if it is near: "Tomorrow 17:00". */
export function describe(due: string, now: Date): string {
  const [day = "", time] = due.split("T");
  return time ? `${describeDay(day, dayOf(now))} ${describeTime(time)}` : describeDay(day, dayOf(now));
}

function describeDay(day: Day, today: Day): string {
  const days = (atMidnight(day).getTime() - atMidnight(today).getTime()) / MILLISECONDS_PER_DAY;
  if (days === -1) return "Yesterday";
  if (days === 0) return "Today";
  if (days === 1) return "Tomorrow";
  if (days > 1 && days < 7) return WEEKDAY.format(atMidnight(day));
  const sameYear = day.slice(0, 4) === today.slice(0, 4);
  return (sameYear ? THIS_YEAR : ANY_YEAR).format(atMidnight(day));
}

/** Writes HH:MM as the user's locale does. */
function describeTime(time: string): string {
  return TIME.format(new Date(`1970-01-01T${time}Z`));
}
