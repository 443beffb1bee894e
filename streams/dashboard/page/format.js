// Numbers, times and durations as people read them. Pure.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 });
const percentage = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 0 });
const shortNumber = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clockTime = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const hourAndMinute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const dayAndTime = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit",
});

export const NONE = "–";

export const count = (n) => (n === null || n === undefined ? NONE : whole.format(n));

export const signed = (n) => (n === null || n === undefined ? NONE : `${n > 0 ? "+" : n < 0 ? "−" : ""}${Math.abs(n)}`);

export const clock = (ms) => clockTime.format(new Date(ms));

export const minute = (ms) => hourAndMinute.format(new Date(ms));

export const rate = (n) => (n > 0 && n < 10 ? oneDigit.format(n) : whole.format(n));

export const share = (n) => (n === null || n === undefined ? NONE : percentage.format(n));

export const percent = (n) => `${(100 * n).toFixed(1)}%`;

export const compact = (n) => (n === null || n === undefined ? NONE : shortNumber.format(n));

export const finePercentage = (n) => (n === null || n === undefined ? NONE : `${oneDigit.format(100 * n)}%`);

export const similarity = (n) => n.toFixed(2);

export const megabytes = (bytes) => `${(bytes < 1e7 ? oneDigit : whole).format(bytes / 1e6)} MB`;

export function milliseconds(ms) {
  if (ms === null || ms === undefined) return NONE;
  if (ms < 10) return `${oneDigit.format(ms)} ms`;
  return ms < 10000 ? `${whole.format(ms)} ms` : duration(ms / 1000);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds === 0) return "0 s";
  if (seconds < 0.1) return "< 0.1 s";
  if (seconds < 10) return `${oneDigit.format(seconds)} s`;
  if (seconds < 60) return `${whole.format(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${whole.format(seconds / 86400)} days`;
}

// The time of day when it is near `now`, with the date when it is not. Takes epoch ms or RFC 3339.
export function moment(time, now) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return String(time);
  return (Math.abs(now - date.getTime()) < 43200000 ? clockTime : dayAndTime).format(date);
}

export const dayAndMinute = (ms) => dayAndTime.format(new Date(ms));

// [0, 1, 2, 5] -> "0–2, 5"
export function ranges(numbers) {
  const runs = [];
  for (const n of numbers) {
    const last = runs.at(-1);
    if (last && n === last[1] + 1) last[1] = n;
    else runs.push([n, n]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ") || "none";
}
