// What differs between two versions, in a dialog.

import { get } from "./api.js";
import { dialog } from "./dialogs.js";
import { button, el, labelled, near, plural, problem, short } from "./dom.js";

/** Opens the comparison; `names` are the versions to choose from, newest first, with their tags. */
export function compare(names, from, to) {
  const select = (chosen) => {
    const made = el("select", {}, ...names.map(([name, tags]) =>
      el("option", { value: name, text: [name, ...tags].join(", ") })));
    made.value = chosen;
    return made;
  };
  const newest = names[0][0];
  const before = select(from ?? names[Math.min(1, names.length - 1)][0]);
  const after = select(to ?? newest);
  const asks = el("input", { type: "checkbox", id: "asksmodel" });
  const place = el("div", { class: "found", "aria-live": "polite" });
  let wanted = 0;
  const show = async () => {
    const mine = ++wanted;
    place.replaceChildren(el("p", { class: "muted", text: "Comparing …" }));
    const query = new URLSearchParams({
      from: before.value, to: after.value, behavior: asks.checked,
    });
    try {
      const found = await get(`/v1/diff?${query}`);
      if (mine === wanted) place.replaceChildren(...drawn(found));
    } catch (error) {
      if (mine === wanted) place.replaceChildren(problem(error));
    }
  };
  for (const one of [before, after, asks]) one.addEventListener("change", show);
  show();
  return dialog("Compare versions", (close) => [
    el("div", { class: "row" }, labelled("From", before), labelled("To", after)),
    el("p", {}, asks, " ", el("label", { for: "asksmodel", text: "Ask the model at both" })),
    place,
    el("div", { class: "row end" }, button("Close", () => close(), { class: "quiet" })),
  ], { class: "wide" });
}

function drawn(found) {
  const { added, removed, adjusted, codebook, adaptors, behavior, unasked } = found;
  const said = added.length + removed.length === 0
    ? "The same edits are active."
    : `${plural(added.length, "edit")} came, ${removed.length} went.`;
  const rows = codebook.fingerprint === null ? null
    : `Codebook: ${plural(codebook.added, "row")} added, ${codebook.removed} removed, `
      + `${codebook.radius_changed} with another radius.`;
  return [
    el("p", { text: said }),
    el("ul", { class: "changes" }, ...added.map((one) => edit(one, "came", "+")),
      ...removed.map((one) => edit(one, "went", "−"))),
    adjusted.length > 0 && el(
      "ul", { class: "changes" }, ...adjusted.map((one) => adjustment(one, found)),
    ),
    rows && el("p", { class: "muted", text: rows }),
    ...adaptors.map((one) => el("p", {
      class: "muted", text: `${one.layer}: weights changed by ${near(one.delta_norm)} (L2)`,
    })),
    ...(behavior.length > 0 ? answers(found) : []),
    ...unasked.map((one) => el("p", {
      class: "muted", text: `Not asked: “${one.prompt}” (${one.reason})`,
    })),
  ].filter(Boolean);
}

const edit = (one, kind, sign) =>
  el(
    "li", { class: kind },
    el("span", { class: "sign", "aria-label": kind, text: sign }),
    el("span", { class: "prompt", text: one.prompt }), " → ", el("strong", { text: one.target }),
    el("code", { text: short(one.id) }),
  );

const SAID = { also: "also applies", not: "does not apply" };

/** Returns what two versions say about a prompt, of one edit. */
const adjustment = (one, found) =>
  el(
    "li", {},
    el("span", { class: "prompt", text: one.edit_prompt }), " → ",
    el("strong", { text: one.target }),
    `, at “${one.prompt}”: `,
    [[found.from, one.before], [found.to, one.after]]
      .map(([version, said]) => `${version} ${SAID[said] ?? "says nothing"}`).join(", "),
  );

function answers(found) {
  const rows = found.behavior.map((one) =>
    el(
      "tr", { class: one.changed ? "changed" : "" },
      el("th", { scope: "row", text: one.prompt }),
      el("td", { "data-label": found.from, text: one.before || "(nothing)" }),
      el("td", { "data-label": found.to, text: one.after || "(nothing)" }),
      el("td", { text: one.changed ? "changed" : "same" }),
    ));
  const heads = ["Asked", found.from, found.to, ""];
  return [
    el("h3", { text: "Answers" }),
    el(
      "table", {},
      el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col", text })))),
      el("tbody", {}, ...rows),
    ),
  ];
}
