// The history beside the chat: versions newest first, and moving about in them.

import { get, post } from "./api.js";
import { asked, confirmed } from "./dialogs.js";
import { compare } from "./diff.js";
import { button, byId, el, moment, plural, problem, short } from "./dom.js";
import { ended } from "./live.js";
import { may, on, state } from "./state.js";

const PAGE = 30;

let entries = []; // of the log, newest first
let isWhole = false; // whether there is nothing older
let wanted = 0; // the newest request counts
let hasFailed = false; // whether what is said above is that it could not be loaded
let drawn = ""; // what the list shows, as text
let spot = null; // what in the list was focused last: position in the log, and text
const open = new Set(); // positions in the log of what is unfolded

export function begin() {
  let timer = null;
  const soon = (wait) => {
    clearTimeout(timer);
    timer = setTimeout(load, wait);
  };
  byId("filter").addEventListener("input", () => soon(250));
  byId("older").addEventListener("click", older);
  byId("undo").addEventListener("click", () => change("/v1/undo", {}));
  byId("redo").addEventListener("click", () => change("/v1/redo", {}));
  byId("compare").addEventListener("click", () => compare(names()));
  byId("at").addEventListener("change", choose);
  byId("log").addEventListener("focusin", ({ target }) => {
    spot = { seq: target.closest("li").dataset.seq, text: target.textContent };
  });
  // A dialog gives the focus back to what opened it, which a new list has replaced by its like.
  document.addEventListener("close", () => setTimeout(() => {
    if (document.activeElement === document.body) refocus();
  }), true);
  on("version", () => soon(100));
  on("connection", (now) => now === "connected" && soon(0));
  on("in", () => {
    for (const one of document.querySelectorAll("[data-needs]")) {
      one.hidden = !may(one.dataset.needs);
    }
    entries = [];
    open.clear();
    load();
  });
}

const page = (limit, before) => {
  const query = new URLSearchParams({ limit });
  if (before !== undefined) query.set("before", before);
  if (byId("filter").value.trim()) query.set("containing", byId("filter").value.trim());
  return get(`/v1/versions?${query}`);
};

async function load() {
  const mine = ++wanted;
  const limit = Math.max(PAGE, Math.min(entries.length, 10_000));
  try {
    const [status, found] = [await get("/v1/status"), await page(limit)];
    if (mine !== wanted || state.who === null) return;
    state.status = status;
    entries = found;
    isWhole = found.length < limit;
    if (hasFailed) byId("historysaid").replaceChildren();
    hasFailed = false;
    draw();
  } catch (error) {
    if (mine !== wanted || error.status === 401) return;
    hasFailed = true;
    byId("historysaid").replaceChildren(problem(error));
  }
}

async function older() {
  const mine = ++wanted;
  try {
    const found = await page(PAGE, entries.at(-1).seq);
    if (mine !== wanted) return;
    const first = entries.length;
    entries = [...entries, ...found];
    isWhole = found.length < PAGE;
    draw();
    byId("log").children[first]?.querySelector("summary")?.focus();
  } catch (error) {
    byId("historysaid").replaceChildren(problem(error));
  }
}

/** Returns the versions that can be named, newest first: each with its tags. */
function names() {
  const known = new Map([[state.status.version, []], ["v0", []]]);
  for (const one of entries) if (one.changed) known.set(one.version, []);
  for (const [tag, at] of Object.entries(state.status.tags)) {
    known.set(at, [...(known.get(at) ?? []), tag]);
  }
  const number = ([name]) => Number(name.slice(1));
  return [...known].sort((a, b) => number(b) - number(a));
}

function draw() {
  const { version, edits } = state.status;
  byId("running").textContent = `${state.who.model} at ${version}`;
  byId("count").textContent = plural(edits, "active edit");
  byId("older").hidden = isWhole;
  const isFiltered = byId("filter").value.trim() !== "";
  // Every change is told twice, by its answer and by an event: the second finds nothing to do.
  const now = JSON.stringify([state.status, entries, isWhole, isFiltered, state.who]);
  if (now === drawn) return;
  drawn = now;
  const items = entries.map(entry);
  if (isWhole && !isFiltered) items.push(start());
  if (items.length === 0) items.push(el("li", { class: "empty", text: "Nothing matches." }));
  const wasHere = byId("log").contains(document.activeElement);
  byId("log").replaceChildren(...items);
  if (wasHere) refocus();
  const at = byId("at").value;
  const options = names().map(([name, tags]) =>
    el("option", { value: name, text: [name, ...tags].join(", ") }));
  byId("at").replaceChildren(el("option", { value: "", text: `now (${version})` }), ...options);
  byId("at").value = at;
  if (byId("at").selectedIndex < 0) byId("at").value = "";
  choose();
}

/** Moves the focus to the like of what had it in the list; where there is none, to its line. */
function refocus() {
  const item = spot && byId("log").querySelector(`[data-seq="${spot.seq}"]`);
  const like = [...(item?.querySelectorAll("button") ?? [])]
    .find((one) => one.textContent === spot.text);
  (like ?? item?.querySelector("summary"))?.focus({ preventScroll: true });
}

function choose() {
  document.body.classList.toggle("pinned", byId("at").value !== "");
}

/** Returns one operation of the log: a line, and what is under it. */
function entry(one) {
  const isCurrent = one.changed && one.version === state.status.version;
  const folded = el(
    "details", { open: open.has(one.seq) },
    el(
      "summary", {},
      el("span", { class: "version", text: one.version }),
      el("span", { class: "kind", text: one.operation }),
      isCurrent && el("span", { class: "now", text: "current" }),
      ...one.tags.map((tag) => el("span", { class: "tag", text: tag })),
      one.status && one.status !== "active" && el("span", { class: "status", text: one.status }),
      el("span", { class: "when muted" }, moment(one.time)),
      el(
        "span", { class: "gist" },
        ...(one.prompt === null || one.operation === "adjust" ? [one.detail] : [
          el("span", { class: "prompt", text: one.prompt }), " → ",
          el("strong", { text: one.target }),
        ]),
      ),
    ),
    facts(one),
    actions(one, isCurrent),
  );
  folded.addEventListener("toggle", () => open[folded.open ? "add" : "delete"](one.seq));
  return el("li", { "data-seq": one.seq, class: isCurrent ? "current" : "" }, folded);
}

function facts(one) {
  const rows = [
    ["Did", one.prompt !== null && one.detail],
    ["Of", one.operation === "adjust" && `${one.prompt} → ${one.target}`],
    ["By", one.author], ["Why", one.reason],
    ["Method", one.method],
    ["Edit", one.edit_id && short(one.edit_id)],
  ].filter(([, value]) => value);
  return el("dl", {}, ...rows.flatMap(([name, value]) => [
    el("dt", { text: name }), el("dd", { text: value }),
  ]));
}

function actions(one, isCurrent) {
  const before = `v${Number(one.version.slice(1)) - 1}`;
  const does = [];
  if (one.changed) does.push(button("What changed", () => compare(names(), before, one.version)));
  if (one.changed && may("admin")) does.push(button("Tag", () => tag(one.version)));
  if (may("edit") && one.edit_id && one.status === "active") {
    does.push(button("Revert this edit", () => revert(one)));
  }
  if (may("edit") && one.changed && !isCurrent) {
    does.push(button("Roll back to here", () => rollback(one.version)));
  }
  return does.length > 0 && el("div", { class: "row" }, ...does);
}

/** Returns the beginning of every history: the model as it came. */
function start() {
  const isCurrent = state.status.version === "v0";
  const tags = Object.entries(state.status.tags).filter(([, at]) => at === "v0");
  return el(
    "li", { "data-seq": 0, class: isCurrent ? "current" : "" },
    el(
      "details", { open: open.has(0) },
      el(
        "summary", {},
        el("span", { class: "version", text: "v0" }),
        el("span", { class: "kind", text: "untouched" }),
        isCurrent && el("span", { class: "now", text: "current" }),
        ...tags.map(([name]) => el("span", { class: "tag", text: name })),
        el("span", { class: "gist", text: "The model as it came, no edit active" }),
      ),
      el(
        "div", { class: "row" },
        may("admin") && button("Tag", () => tag("v0")),
        may("edit") && !isCurrent && button("Roll back to here", () => rollback("v0")),
      ),
    ),
  );
}

async function tag(version) {
  const name = await asked(`Tag ${version}`, "Name; one in use moves here", "Tag", {
    maxlength: 200,
  });
  if (name) await change("/v1/versions/tag", { version, name });
}

async function revert(one) {
  const title = "Revert this edit?";
  const text = `“${one.prompt}” will no longer be answered with “${one.target}”. `
    + "Later edits stay; undo brings it back.";
  if (!(await confirmed(title, text, "Revert"))) return;
  await change(`/v1/edits/${one.edit_id}/revert`, {});
}

async function rollback(version) {
  const text = `The edits of ${version} become the active ones again, as a new version. `
    + "Nothing is lost: undo brings the later ones back.";
  if (!(await confirmed(`Roll back to ${version}?`, text, "Roll back"))) return;
  await change("/v1/rollback", { version });
}

/** Carries a change out, and says what came of it. */
async function change(path, body) {
  const said = byId("historysaid");
  said.replaceChildren(el("p", { class: "muted", text: "Working …" }));
  try {
    let found = await post(path, { ...body, wait: false });
    if (found.state !== undefined) {
      const { error, result } = await ended(found);
      if (error) throw Object.assign(new Error(error.message), error);
      found = result;
    }
    await load();
    const text = found.tag
      ? `${found.version} is tagged ${found.tag}.`
      : `Now at ${found.version}: ${found.detail}; ${plural(found.view, "active edit")}.`;
    said.replaceChildren(el("p", { text }));
  } catch (error) {
    said.replaceChildren(problem(error));
  }
}
