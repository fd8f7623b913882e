/** Reads a task from one line: "Call Bob tomorrow 17:00 #work !high". */

import type { NewTask, Priority } from "./api";
import { addDays, type Day, dayOf, isDay, timeOf, twoDigits, weekdayOf } from "./dates";

/** A part of the line that was recognized, as it was typed. */
export interface Part {
  kind: "due" | "priority" | "tag";
  typed: string;
}

export interface Reading {
  task: NewTask;
  parts: Part[];
}

const WEEKDAYS = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const MONTH =
  "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)" +
  "(?:uary|ruary|ch|il|e|y|ust|t|tember|ober|ember)?";

/** A rule returns undefined if what it matched is not a date after all. */
type DateRule = [pattern: RegExp, read: (match: RegExpExecArray, today: Day) => Day | undefined];

// Each matches whole words only, including a preposition in front of them.
const DATE_RULES: DateRule[] = [
  [words(String.raw`(\d{4}-\d\d-\d\d)`), ([, , day = ""]) => (isDay(day) ? day : undefined)],
  [words("today"), (_, today) => today],
  [words("tomorrow"), (_, today) => addDays(today, 1)],
  [words("next week"), (_, today) => nextWeekday(1, today)],
  [
    words(`(?:next )?(${WEEKDAYS.join("|")})`),
    ([, , name = ""], today) => nextWeekday(WEEKDAYS.indexOf(name.toLowerCase()), today),
  ],
  [
    words(String.raw`in (\d{1,3}) (days?|weeks?)`),
    ([, , count, unit = ""], today) =>
      addDays(today, Number(count) * (/^week/i.test(unit) ? 7 : 1)),
  ],
  [
    words(String.raw`${MONTH} (\d{1,2})(?:st|nd|rd|th)?`),
    ([, , month = "", day = ""], today) => nextDate(month, day, today),
  ],
  [
    words(String.raw`(\d{1,2})(?:st|nd|rd|th)? ${MONTH}`),
    ([, , day = "", month = ""], today) => nextDate(month, day, today),
  ],
];

const TIME_24 = timeWords(String.raw`([01]?\d|2[0-3]):([0-5]\d)`);
const TIME_12 = timeWords(String.raw`(1[0-2]|0?[1-9])(?::([0-5]\d))? ?([ap])m`);
const PRIORITY = /(^|\s)!(low|medium|high)(?!\S)/i;
// A number is not a tag: "Fix #42" refers to an issue.
const TAG = /(^|\s)#(?!\d+(?:\s|$))([^\s#]+)(?!\S)/g;

function words(pattern: string): RegExp {
  return new RegExp(String.raw`(^|\s)(?:(?:on|by) )?${pattern}(?!\S)`, "i");
}

function timeWords(pattern: string): RegExp {
  return new RegExp(String.raw`(^|\s)(?:(?:at|by) )?${pattern}(?!\S)`, "i");
}

/** Reads the line. Parts in `kept`, as they were typed, are not recognized and stay in the title. */
export function readLine(line: string, now: Date, kept: ReadonlySet<string> = new Set()): Reading {
  const parts: Part[] = [];
  let rest = line;

  /** Removes the match from the rest. */
  function take(kind: Part["kind"], match: RegExpExecArray): void {
    parts.push({ kind, typed: match[0].trim() });
    rest = `${rest.slice(0, match.index)} ${rest.slice(match.index + match[0].length)}`;
  }

  const day = takeDay();
  const time = takeTime();
  const due = time ? `${day ?? dayFor(time, now)}T${time}` : day;
  const priority = takePriority();
  const tags = takeTags();
  const title = rest.replace(/\s+/g, " ").trim();
  // If nothing else is left of the line, use the whole line as the title.
  if (!title || parts.length === 0) return { task: { title: line.trim() }, parts: [] };
  parts.sort((a, b) => line.indexOf(a.typed) - line.indexOf(b.typed));
  return {
    task: {
      title,
      ...(due && { due_date: due }),
      ...(priority && { priority }),
      ...(tags.length > 0 && { tags }),
    },
    parts,
  };

  function takeDay(): Day | undefined {
    for (const [pattern, read] of DATE_RULES) {
      const match = pattern.exec(rest);
      const found = match && !kept.has(match[0].trim()) && read(match, dayOf(now));
      if (match && found) {
        take("due", match);
        return found;
      }
    }
    return undefined;
  }

  function takeTime(): string | undefined {
    for (const pattern of [TIME_24, TIME_12]) {
      const match = pattern.exec(rest);
      if (!match || kept.has(match[0].trim())) continue;
      take("due", match);
      return twentyFourHours(match);
    }
    return undefined;
  }

  function takePriority(): Priority | undefined {
    const match = PRIORITY.exec(rest);
    if (!match || kept.has(match[0].trim())) return undefined;
    take("priority", match);
    return match[2]?.toLowerCase() as Priority;
  }

  function takeTags(): string[] {
    const found: string[] = [];
    // From the end, so that the indices of earlier matches stay valid.
    for (const match of [...rest.matchAll(TAG)].reverse()) {
      if (kept.has(match[0].trim())) continue;
      take("tag", match);
      found.unshift(match[2] ?? "");
    }
    const folded = found.map((tag) => tag.toLowerCase());
    return found.filter((_, index) => folded.indexOf(folded[index] ?? "") === index);
  }
}

function twentyFourHours([, , hour, minute = "00", half]: RegExpExecArray): string {
  const hours = half ? (Number(hour) % 12) + (half.toLowerCase() === "p" ? 12 : 0) : Number(hour);
  return `${twoDigits(hours)}:${minute}`;
}

/** A time without a day means today, or tomorrow if it has passed. */
function dayFor(time: string, now: Date): Day {
  return time > timeOf(now) ? dayOf(now) : addDays(dayOf(now), 1);
}

/** Returns the first such weekday after today. */
function nextWeekday(weekday: number, today: Day): Day {
  return addDays(today, ((weekday - weekdayOf(today) + 6) % 7) + 1);
}

/** Returns this year's date, or next year's if it has passed. */
function nextDate(month: string, day: string, today: Day): Day | undefined {
  const monthAndDay = `${twoDigits(MONTHS.indexOf(month.toLowerCase()) + 1)}-${twoDigits(Number(day))}`;
  const year = Number(today.slice(0, 4));
  return [`${year}-${monthAndDay}`, `${year + 1}-${monthAndDay}`].find(
    (candidate) => isDay(candidate) && candidate >= today,
  );
}
