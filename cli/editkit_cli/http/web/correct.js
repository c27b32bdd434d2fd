// Correcting an answer where it stands: a form under it, and what came of it.

import { Failure, post } from "./api.js";
import { button, el, labelled, plural, problem, sendsOnEnter, short } from "./dom.js";
import { ended } from "./live.js";
import { on, state } from "./state.js";

/** Opens the form; `close` takes it away, `done` is given an element that tells what was made. */
export function correct(panel, said, conversation, { close, done }) {
  if (said.version !== state.status.version && !isPinnedToCurrent(said)) {
    panel.append(older(said, close));
    panel.querySelector("button").focus();
    return;
  }
  const target = el("textarea", { rows: 2, required: true });
  target.value = said.text;
  const reason = el("input", { maxlength: 1000 });
  const rephrases = el("textarea", { rows: 2 });
  const scope = el(
    "select", {},
    ...[["", "as the model was opened"], ["strict", "strict: few other wordings"],
      ["balanced", "balanced"], ["broad", "broad: many other wordings"]]
      .map(([value, text]) => el("option", { value, text })),
  );
  const outcome = el("div", { class: "outcome", "aria-live": "polite" });
  const save = el("button", { type: "submit", class: "main", text: "Save the correction" });
  const form = el(
    "form", { class: "card correct", autocomplete: "off" },
    labelled("What the model should have answered", target),
    el(
      "details", { class: "options" },
      el("summary", { text: "More about it" }),
      el(
        "div", { class: "fields" },
        labelled("Reason, for the history", reason),
        labelled("Other wordings of the question, one a line", rephrases),
        labelled("How far it reaches", scope),
      ),
    ),
    outcome,
    el("div", { class: "row end" }, button("Cancel", close, { class: "quiet" }), save),
  );
  const body = () => ({
    target: target.value.trim(),
    ...(state.who.has_chat ? { chat: said.messages } : { prompt: said.messages[0].content }),
    ...(reason.value.trim() ? { reason: reason.value.trim() } : {}),
    ...(scope.value ? { scope: scope.value } : {}),
    rephrases: rephrases.value.split("\n").map((one) => one.trim()).filter(Boolean),
    conversation,
  });
  const submit = async (conflict) => {
    if (save.disabled || !target.value.trim()) return;
    save.disabled = true;
    try {
      const added = await learned({ ...body(), on_conflict: conflict }, outcome);
      if (added.verified) done(told(added));
      else outcome.replaceChildren(unverified(added));
    } catch (error) {
      outcome.replaceChildren(refused(error, () => submit("supersede")));
    } finally {
      save.disabled = false;
      if (outcome.isConnected) outcome.scrollIntoView({ block: "nearest" });
    }
  };
  sendsOnEnter(target);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit("error"); // what it would replace is shown first
  });
  form.addEventListener("keydown", (event) => event.key === "Escape" && close());
  panel.append(form);
  target.focus();
  target.select();
  form.scrollIntoView({ block: "nearest" });
}

/** A conversation goes on over many versions; an edit is of the current one, whatever answered. */
const isPinnedToCurrent = () => document.getElementById("at").value === "";

function older(said, close) {
  const goBack = () => {
    const at = document.getElementById("at");
    at.value = "";
    at.dispatchEvent(new Event("change"));
    close();
  };
  return el(
    "div", { class: "card" },
    el("p", {
      text: `This is an answer of ${said.version}, an older version. A correction is of the `
        + "current one: ask there, and correct what is still wrong.",
    }),
    el(
      "div", { class: "row end" },
      button("Answer from the current version", goBack, { class: "main" }),
      button("Close", close, { class: "quiet" }),
    ),
  );
}

/** Sends a correction and returns what came of it; `place` shows how far it is. */
async function learned(body, place) {
  const bar = el("progress", {});
  const text = el("p", { text: "Sending …" });
  place.replaceChildren(el("div", { class: "progress" }, text, bar));
  place.scrollIntoView({ block: "nearest" });
  const headers = { Prefer: "respond-async", "Idempotency-Key": keyOf(body) };
  const operation = await post("/v1/edits", body, { headers });
  if (operation.state === undefined) return operation; // it was known: nothing to wait for
  const leave = [
    on("learning", (step) => {
      if (step.operation !== operation.id) return;
      text.textContent = "Learning …";
      // Of one edit, a bar would stand at nothing until it is over: it only moves then.
      if (step.total > 1) Object.assign(bar, { max: step.total, value: step.done });
    }),
    on("operation", (one) => {
      if (one.id !== operation.id) return;
      text.textContent = one.state === "waiting" ? "Waiting for its turn …" : "Learning …";
    }),
    on("connection", (now) => {
      if (now === "reconnecting") text.textContent = "The server is away; reconnecting …";
    }),
  ];
  try {
    const { error, result } = await ended(operation);
    if (error) throw new Failure(error);
    return result;
  } finally {
    for (const one of leave) one();
  }
}

let last = { text: null, key: null };

/** The same correction sent twice (say, because the answer was lost) is one edit. */
function keyOf(body) {
  const text = JSON.stringify(body);
  if (last.text !== text) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    last = { text, key: Array.from(bytes, (one) => one.toString(16).padStart(2, "0")).join("") };
  }
  return last.key;
}

function told(added) {
  const also = [];
  const were = [...new Set([...added.supersedes, ...added.conflicts.map((one) => one.edit_id)])];
  if (were.length > 0) also.push(`It goes before ${were.map(short).join(", ")}.`);
  if (added.lost.length > 0) {
    also.push(`${plural(added.lost.length, "earlier edit")} no longer gives its target: `
      + `${added.lost.map(short).join(", ")}.`);
  }
  const isKnown = added.outcome === "known";
  return el(
    "div", { class: "told", tabindex: "-1", role: "status" },
    el(
      "p", {},
      el("span", { class: "version", text: added.version }), " ",
      isKnown ? "Known already: " : "Corrected and verified: ",
      el("strong", { text: added.edit.target }),
    ),
    added.reach && el("p", { class: "muted", text: `Reach: ${added.reach.summary}` }),
    also.length > 0 && el("p", { class: "muted", text: also.join(" ") }),
  );
}

const unverified = (added) =>
  problem({
    message: `The correction did not verify: the model would answer “${added.answer}”, not `
      + `“${added.edit.target}”. It is in the history as failed, and not active.`,
    hint: "Say it in other words, or shorter.",
  });

function refused(error, replace) {
  if (error.code !== "contradicts_edit") return problem(error);
  const hint = "Replace it where the two meet, or leave it as it is.";
  return problem({ message: error.message, hint }, button("Replace it", replace));
}
