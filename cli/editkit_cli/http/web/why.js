// Why the model answered so: the edit that fired and how near the others are.

import { post } from "./api.js";
import { button, el, near, problem, short } from "./dom.js";
import { state } from "./state.js";

export async function why(panel, said, close) {
  const box = el("div", { class: "card why", tabindex: "-1", role: "group", "aria-label": "Why" });
  box.addEventListener("keydown", (event) => event.key === "Escape" && close());
  box.append(el("p", { class: "muted", text: "Looking …" }));
  panel.append(box);
  box.focus();
  const asks = state.who.has_chat
    ? { chat: said.messages } : { prompt: said.messages[0].content };
  try {
    const found = await post("/v1/explain", { ...asks, version: said.version, k: 5 });
    box.replaceChildren(el("p", { text: found.summary }), ...table(found));
  } catch (error) {
    box.replaceChildren(problem(error));
  }
  box.append(el("div", { class: "row end" }, button("Close", close, { class: "quiet" })));
  box.scrollIntoView({ block: "nearest" });
}

function table(found) {
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
        el("code", { text: short(one.edit_id) }),
      ),
    ),
  );
  return [el("h3", { text: "Nearest edits" }), el("ol", { class: "candidates" }, ...rows)];
}

/** Draws how far an edit reaches, and where the prompt is. The words beside it say the same. */
function gauge(one, widest) {
  const share = (value) => `${(92 * value) / (widest || 1)}%`;
  const reach = el("span", { class: "reach" });
  const mark = el("span", { class: "mark" });
  reach.style.width = share(one.radius);
  mark.style.left = share(one.distance);
  return el("div", { class: "gauge", "aria-hidden": "true" }, reach, mark);
}
