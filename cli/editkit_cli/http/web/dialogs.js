// Dialogs are the browser's own: they keep the focus in, Esc closes them, and it goes back after.

import { button, el } from "./dom.js";

/** Shows a dialog; `fill(close)` returns its content. Resolves with what `close` was given. */
export function dialog(title, fill, how = {}) {
  return new Promise((resolve) => {
    const made = el("dialog", { "aria-labelledby": "dialogtitle", ...how });
    const close = (value) => {
      resolve(value);
      made.close();
    };
    made.append(el("h2", { id: "dialogtitle", text: title }), ...fill(close));
    made.addEventListener("close", () => {
      resolve(undefined);
      made.remove();
    });
    document.body.append(made);
    made.showModal();
  });
}

/** Asks before something is done; returns whether it may be. */
export const confirmed = async (title, text, yes) =>
  Boolean(
    await dialog(title, (close) => [
      el("p", { text }),
      el(
        "div", { class: "row end" },
        button("Cancel", () => close(false), { class: "quiet", autofocus: true }),
        button(yes, () => close(true), { class: "main" }),
      ),
    ]),
  );

/** Asks for one line of text; returns it, or undefined. */
export const asked = (title, label, yes, how = {}) =>
  dialog(title, (close) => {
    const input = el("input", { id: "dialoginput", required: true, autofocus: true, ...how });
    const submit = (event) => {
      event.preventDefault();
      close(input.value.trim() || undefined);
    };
    return [
      el(
        "form", { onsubmit: submit, autocomplete: "off" },
        el("div", { class: "field" }, el("label", { for: "dialoginput", text: label }), input),
        el(
          "div", { class: "row end" },
          button("Cancel", () => close(undefined), { class: "quiet" }),
          el("button", { type: "submit", class: "main", text: yes }),
        ),
      ),
    ];
  });
