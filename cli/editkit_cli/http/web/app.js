// The page: its parts begin here.

import * as chat from "./chat.js";
import { byId } from "./dom.js";
import * as history from "./history.js";
import * as learning from "./learning.js";
import * as session from "./session.js";
import { on } from "./state.js";

const SAID = {
  connected: "connected",
  reconnecting: "reconnecting …",
  out: "",
};

on("connection", (now) => {
  document.body.dataset.connection = now;
  byId("connection").textContent = SAID[now];
});

// On a narrow screen one pane is shown at a time.
for (const one of byId("panes").querySelectorAll("button")) {
  one.addEventListener("click", () => {
    document.body.dataset.pane = one.dataset.pane;
    for (const other of byId("panes").querySelectorAll("button")) {
      other.setAttribute("aria-pressed", String(other === one));
    }
  });
}

chat.begin();
history.begin();
learning.begin();
session.begin(); // the last: it tells the others when somebody is in
