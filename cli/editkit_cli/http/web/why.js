// Why the model answered so: the edit that fired and how near the others are; and whether an edit
// should apply here, or should not.

import { Failure, post } from "./api.js";
import { button, byId, el, near, problem, short } from "./dom.js";
import { ended } from "./live.js";
import { may, state } from "./state.js";

/** Opens the explanation; `close` takes it away, `done` is given an element that tells a change. */
export async function why(panel, said, { close, done }) {
  const box = el("div", { class: "card why", tabindex: "-1", role: "group", "aria-label": "Why" });
  box.addEventListener("keydown", (event) => event.key === "Escape" && close());
  box.append(el("p", { class: "muted", text: "Looking …" }));
  panel.append(box);
  box.focus();
  const asks = state.who.has_chat
    ? { chat: said.messages } : { prompt: said.messages[0].content };
  try {
    const found = await post("/v1/explain", { ...asks, version: said.version, k: 5 });
    box.replaceChildren(el("p", { text: found.summary }), ...table(found, said, done));
  } catch (error) {
    box.replaceChildren(problem(error));
  }
  box.append(el("div", { class: "row end" }, button("Close", close, { class: "quiet" })));
  box.scrollIntoView({ block: "nearest" });
}

function table(found, said, done) {
  if (found.candidates.length === 0) return [];
  const widest = Math.max(...found.candidates.map((one) => Math.max(one.distance, one.radius)));
  const rows = found.candidates.map((one) =>
    el(
      "li", { class: one.edit_id === found.fired ? "candidate fired" : "candidate" },
      el(
        "p", {},
        el("span", { class: "prompt", text: one.prompt }), " → ",
        el("strong", { text: one.target }),
      ),
      gauge(one, widest),
      el(
        "p", { class: "muted" },
        `${near(one.distance)} away, reaches ${near(one.radius)}: `,
        one.edit_id === found.fired ? "fires" : one.in_scope ? "in scope" : "out of scope",
        one.adjusted
          && `, adjusted: ${one.adjusted === "also" ? "applies" : "does not apply"} here`,
        el("code", { text: short(one.edit_id) }),
      ),
      // An answer of an older version says nothing of the current one, which would be adjusted.
      may("edit") && byId("at").value === "" && reach(one, one.edit_id === found.fired, said, done),
    ),
  );
  return [el("h3", { text: "Nearest edits" }), el("ol", { class: "candidates" }, ...rows)];
}

/** Returns the button that corrects whether an edit applies to what was asked. */
function reach(one, isFiring, said, done) {
  const outcome = el("div", { class: "outcome", "aria-live": "polite" });
  const asked = said.messages.at(-1).content;
  const act = async ({ currentTarget: opener }) => {
    opener.disabled = true;
    outcome.replaceChildren(el("p", { class: "muted", text: "Working …" }));
    try {
      const body = { [isFiring ? "not" : "also"]: [asked], wait: false };
      const { error, result } = await ended(await post(`/v1/edits/${one.edit_id}/adjust`, body));
      if (error) throw new Failure(error);
      if (result.outcome === "failed") outcome.replaceChildren(problem(unverified(result)));
      else done(told(result, isFiring));
    } catch (error) {
      outcome.replaceChildren(problem(error));
    } finally {
      opener.disabled = false;
    }
  };
  const text = isFiring ? "Should not apply here" : "Should apply here";
  return el("div", {}, el("div", { class: "row" }, button(text, act)), outcome);
}

const told = (result, isLeft) =>
  el(
    "div", { class: "told", tabindex: "-1", role: "status" },
    el(
      "p", {},
      el("span", { class: "version", text: result.version }), " ",
      isLeft ? "No longer applies here: " : "Applies here, verified: ",
      el("span", { class: "prompt", text: result.edit.prompt }), " → ",
      el("strong", { text: result.edit.target }),
    ),
  );

const unverified = ({ also: [one], edit }) => ({
  message: `Here the model would answer “${one.answer}”, not “${edit.target}”. `
    + "The edit reaches as far as before.",
  hint: "Correct this answer instead.",
});

/** Draws how far an edit reaches, and where the prompt is. The words beside it say the same. */
function gauge(one, widest) {
  const share = (value) => `${(92 * value) / (widest || 1)}%`;
  const ball = el("span", { class: "reach" });
  const mark = el("span", { class: "mark" });
  ball.style.width = share(one.radius);
  mark.style.left = share(one.distance);
  return el("div", { class: "gauge", "aria-hidden": "true" }, ball, mark);
}
