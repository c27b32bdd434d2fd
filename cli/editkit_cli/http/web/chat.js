// The conversation: questions, answers as they come, and what can be done about an answer.

import { events, send } from "./api.js";
import { correct } from "./correct.js";
import { button, byId, el, plural, problem, sendsOnEnter, short } from "./dom.js";
import { may, on, state } from "./state.js";
import { why } from "./why.js";

const turns = []; // each: {question, text, version, fired, delivered, place}
let conversation = crypto.randomUUID?.() ?? String(Date.now());
let running = null; // AbortController of the answer that is coming

export function begin() {
  sendsOnEnter(byId("question"));
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("question").value.trim();
    if (!text || running) return;
    byId("question").value = "";
    say(text);
  });
  byId("stop").addEventListener("click", () => running?.abort());
  byId("fresh").addEventListener("click", fresh);
  on("in", () => {
    if (turns.length === 0) fresh();
    byId("question").focus();
  });
}

function fresh() {
  running?.abort();
  turns.length = 0;
  conversation = crypto.randomUUID?.() ?? String(Date.now());
  byId("turns").replaceChildren(
    el(
      "div", { class: "empty" },
      el("p", { text: "Ask the model something. Where it is wrong, correct it right there." }),
      el("p", { class: "muted", text: "A correction holds at once, for everybody who asks it." }),
    ),
  );
  byId("question").focus();
}

/** Returns the conversation up to and including a turn's question, as the model is to see it. */
function asked(turn) {
  const question = { role: "user", content: turn.question };
  if (!state.who.has_chat) return [question]; // such a model continues plain prompts
  const system = byId("system").value.trim();
  const before = turns.slice(0, turns.indexOf(turn)).filter((one) => one.text);
  return [
    ...(system ? [{ role: "system", content: system }] : []),
    ...before.flatMap((one) => [
      { role: "user", content: one.question },
      { role: "assistant", content: one.text },
    ]),
    question,
  ];
}

function say(question) {
  if (turns.length === 0) byId("turns").replaceChildren();
  const place = el("div", { class: "answers" });
  const turn = { question, text: "", place };
  turns.push(turn);
  byId("turns").append(
    el("article", { class: "turn" }, el("p", { class: "question", text: question }), place),
  );
  answer(turn);
}

/** Lets the model answer a turn's question; an answer that was there before stays above it. */
async function answer(turn) {
  const messages = asked(turn);
  const text = el("p", { class: "text" });
  const under = el("div", { class: "under" });
  const shown = el("div", { class: "answer", "aria-busy": "true" }, text, under);
  for (const old of turn.place.querySelectorAll(":scope > .answer")) old.classList.add("old");
  turn.place.append(shown);
  running = new AbortController();
  busy(true);
  const said = { messages, text: "", version: null, fired: [], delivered: null, ending: null };
  try {
    for await (const chunk of chunks(messages, running.signal)) {
      said.version = chunk.version ?? said.version;
      const [choice] = chunk.choices;
      said.text += choice?.delta?.content ?? choice?.text ?? "";
      said.ending = choice?.finish_reason ?? said.ending;
      said.fired = choice?.fired ?? said.fired;
      said.delivered = choice?.delivered ?? said.delivered;
      text.textContent = said.text;
      follow();
    }
  } catch (error) {
    if (error.name === "AbortError") said.ending = "stopped";
    else {
      shown.append(problem(error, button("Try again", () => again(turn, shown))));
      follow();
    }
  } finally {
    running = null;
    busy(false);
    shown.removeAttribute("aria-busy");
  }
  if (said.ending === null) return;
  Object.assign(turn, said);
  if (!said.text) text.append(el("em", { class: "muted", text: "(nothing)" }));
  finished(turn, said, shown, under);
  follow();
}

function again(turn, shown) {
  if (running) return;
  shown.remove();
  answer(turn);
}

/** Puts under an answer which version gave it and what fired, and what one can do about it. */
function finished(turn, said, shown, under) {
  const panel = el("div", { class: "panel" });
  const toggle = (act) => (event) => {
    const opener = event.currentTarget;
    const wasOpen = opener.getAttribute("aria-expanded") === "true";
    for (const one of under.querySelectorAll("[aria-expanded]")) {
      one.setAttribute("aria-expanded", "false");
    }
    panel.replaceChildren();
    if (!wasOpen) {
      opener.setAttribute("aria-expanded", "true");
      act(opener);
    }
  };
  const close = (opener) => {
    panel.replaceChildren();
    opener.setAttribute("aria-expanded", "false");
    opener.focus();
  };
  const closed = { "aria-expanded": "false" };
  const done = (told) => {
    shown.classList.add("corrected");
    under.replaceChildren(told);
    panel.remove();
    told.focus();
    answer(turn);
  };
  under.append(
    el("span", { class: "version", text: said.version ?? "" }),
    el("span", { class: "muted", text: remark(said) }),
    button("Why", toggle((opener) => why(panel, said, {
      close: () => close(opener), done,
    })), closed),
    may("edit") && said.ending !== "stopped" && button(
      "Correct this answer",
      toggle((opener) => correct(panel, said, conversation, {
        close: () => close(opener), done,
      })),
      closed,
    ),
  );
  shown.append(panel);
}

function remark(said) {
  const told = [];
  if (said.fired.length > 0) {
    told.push(`${plural(said.fired.length, "edit")} fired: ${said.fired.map(short).join(", ")}`);
  } else if (said.ending !== "stopped") told.push("no edit fired");
  if (said.delivered === "held") told.push("held to its target");
  if (said.ending === "length") told.push("cut off at its longest");
  if (said.ending === "stopped") told.push("stopped");
  return told.join("; ");
}

/** Yields the chunks of a streamed answer. */
async function* chunks(messages, signal) {
  const { model, has_chat: hasChat } = state.who;
  const at = byId("at").value;
  const body = {
    model: at ? `${model}@${at}` : model,
    stream: true,
    max_tokens: Math.max(1, Math.min(4096, Number(byId("longest").value) || 128)),
    ...(hasChat ? { messages } : { prompt: messages[0].content }),
  };
  const path = hasChat ? "/v1/chat/completions" : "/v1/completions";
  const response = await send("POST", path, { body, signal });
  for await (const { data } of events(response)) {
    if (data === "[DONE]") continue;
    const chunk = data && JSON.parse(data);
    if (chunk?.error) throw Object.assign(new Error(chunk.error.message), chunk.error);
    if (chunk) yield chunk;
  }
}

function busy(is) {
  byId("send").hidden = is;
  byId("stop").hidden = !is;
}

/** Keeps the newest words in sight of whoever reads at the end. */
function follow() {
  const log = byId("turns");
  if (log.scrollHeight - log.scrollTop - log.clientHeight < 240) log.scrollTop = log.scrollHeight;
}
