// What the page says: numbers, times, states and errors in words. Nothing here touches the page.

export const MODALITIES = ["visible", "infrared"];

export const STATES = {
  likely: { title: "Likely in the gallery", means: "A stranger would rarely look as similar as the best match." },
  possible: { title: "Possibly in the gallery", means: "At most one stranger is expected at the best match. Look yourself." },
  absent: { title: "Probably not in the gallery", means: "Nothing is similar enough, and the model seldom misses a person." },
  open: { title: "No reliable match", means: "Nothing is similar enough, but the model often misses a person. So nothing follows." },
  unresolved: { title: "Too many pictures to tell", means: "The calibration has too few people for a search of this size. Narrow it by camera or time." },
  uncalibrated: { title: "Not calibrated", means: "There are two lists, one per modality, because their similarities do not compare. Nothing is said about strangers." },
};

const COUNT = new Intl.NumberFormat();
const ONE_DIGIT = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const TWO_DIGITS = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
const DATE = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const MINUTE = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const SECOND = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";

export const count = (number) => COUNT.format(number);

export const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;

/** Expected strangers as a number: "< 0.01", "0.4", "3.2", "1,204". */
export function strangers(value) {
  if (value < 0.01) return `< ${TWO_DIGITS.format(0.01)}`;
  if (value < 1) return TWO_DIGITS.format(value);
  return value < 9.95 ? ONE_DIGIT.format(value) : count(Math.round(value));
}

export function strangersExpected(value) {
  const shown = strangers(value);
  return `${shown} ${shown === ONE_DIGIT.format(1) || shown === "1" ? "stranger" : "strangers"} expected`;
}

/** A time in the time zone of whoever looks, as a date and a time of day. */
export function when(iso) {
  const time = iso ? new Date(iso) : null;
  if (!time || Number.isNaN(time.getTime())) return null;
  return { date: DATE.format(time), minute: MINUTE.format(time), second: SECOND.format(time), iso: time.toISOString() };
}

/** "1–5 Mar 2026". */
export const days = (first, last) => DATE.formatRange(new Date(first), new Date(last));

/** What "searched" says: "1,204 visible and 88 infrared pictures". */
export function searched(counts) {
  const parts = MODALITIES.filter((one) => counts[one] > 0).map((one) => `${count(counts[one])} ${one}`);
  const all = MODALITIES.reduce((sum, one) => sum + (counts[one] || 0), 0);
  return parts.length ? `${parts.join(" and ")} ${all === 1 ? "picture" : "pictures"}` : "no pictures";
}

/** How a picture of the gallery is named for people who do not see it. */
export function named(match) {
  const time = when(match.time);
  return `${match.modality} picture of camera ${match.camera}${time ? `, ${time.date} ${time.minute}` : ""}`;
}

const ADVICE = {
  400: ["The request was refused", "Change the filters and try again."],
  403: ["The server refused this page", "Open the address that the server printed at its start."],
  404: ["This is not on the server any more", "Choose the picture again."],
  408: ["The upload took too long", "Try again, with a smaller picture or a better connection."],
  413: ["The picture is too large", "Cut it to the person, or save it with fewer pixels."],
  415: ["This kind of file cannot be searched", "Use a picture as JPEG, PNG, WebP or BMP."],
  422: ["The server cannot use this", "Try another picture, or change the filters."],
  429: ["The server is busy", "Wait a moment and try again."],
  503: ["The server is starting or stopping", "Wait a moment and try again."],
};

/** Title and advice for an answer that is no success. */
export function advice(status) {
  if (status === 0) return ["No connection to the server", "Check that it runs and that you are connected. Then try again."];
  return ADVICE[status] || ["Something went wrong on the server", "Try again. If it stays, whoever runs the server finds the reason in its log."];
}
