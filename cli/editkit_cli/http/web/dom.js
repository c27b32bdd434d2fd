// Building the page. Values only ever become text: nothing here (or elsewhere) parses HTML.

/** Returns an element. Functions of `how` named `on...` listen; children are nodes or text. */
export function el(name, how = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(how)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (key === "text") made.textContent = value;
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, String(value));
  }
  made.append(...children.filter((child) => child != null && child !== false));
  return made;
}

export const byId = (id) => document.getElementById(id);

export const button = (text, click, how = {}) =>
  el("button", { type: "button", text, onclick: click, ...how });

let count = 0;

/** Returns a label and its control below each other; `made` gets an id that the label names. */
export function labelled(text, made) {
  made.id ||= `field-${++count}`;
  return el("div", { class: "field" }, el("label", { for: made.id, text }), made);
}

/** Returns a box that tells an error, and what to do about it. */
export function problem(error, ...actions) {
  return el(
    "div", { class: "problem", role: "alert" },
    el("p", { text: error.message }),
    error.hint && el("p", { class: "muted", text: error.hint }),
    actions.length > 0 && el("div", { class: "row" }, ...actions),
  );
}

/** Makes Enter send a form from a text area, as in a chat; Shift+Enter is a new line. */
export function sendsOnEnter(area) {
  area.addEventListener("keydown", (event) => {
    // While a word is being composed (Japanese, Chinese, ...), Enter ends the word.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      area.form.requestSubmit();
    }
  });
}

export const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

export const short = (id) => id.slice(0, 12);

/** A number as `explain` writes it: three digits that count. */
export const near = (number) => String(Number(number.toPrecision(3)));

const RECENT = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const OLDER = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** Returns a point in time: of today the hour only. */
export function moment(text) {
  const time = new Date(text);
  const isToday = time.toDateString() === new Date().toDateString();
  const said = (isToday ? RECENT : OLDER).format(time);
  return el("time", { datetime: text, title: time.toISOString(), text: said });
}
