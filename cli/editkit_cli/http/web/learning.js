// What the model is learning now, whoever asked for it.

import { byId } from "./dom.js";
import { on } from "./state.js";

const running = new Map(); // operation to what it is

export function begin() {
  on("operation", (one) => {
    if (["waiting", "running"].includes(one.state)) running.set(one.id, { of: one });
    else running.delete(one.id);
    draw();
  });
  on("learning", (step) => {
    const known = running.get(step.operation);
    if (known) running.set(step.operation, { ...known, step });
    draw();
  });
  on("connection", (now) => {
    // What has ended meanwhile is not told again.
    if (now !== "connected") running.clear();
    draw();
  });
}

function draw() {
  const place = byId("learning");
  const [first] = running.values();
  place.hidden = first === undefined;
  if (first === undefined) return;
  const { of, step } = first;
  const task = step?.task ?? `${of.kind}: ${of.state}`;
  const more = running.size > 1 ? ` (${running.size - 1} more in line)` : "";
  const text = `${task}${more}`;
  // Only what is new is said by a screen reader: not every step.
  if (byId("learningtext").textContent !== text) byId("learningtext").textContent = text;
  const bar = byId("learningbar");
  if (step?.total > 1) Object.assign(bar, { max: step.total, value: step.done });
  else bar.removeAttribute("value");
}
