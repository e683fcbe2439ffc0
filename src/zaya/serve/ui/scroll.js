// The page follows an answer for as long as its end is in sight, and offers to go back there otherwise.

import { byId } from "./dom.js";

const NEAR = 80;
let following = true;
let isWriting = false;

const root = document.documentElement;
const atEnd = () => root.scrollHeight - root.clientHeight - root.scrollTop < NEAR;

function look() {
  following = atEnd();
  byId("latest").hidden = following;
}

function grew() {
  if (following && isWriting) root.scrollTop = root.scrollHeight;
  else byId("latest").hidden = atEnd();
}

/** Whether an answer is being written. What else grows was opened by hand, and is to stay where it is. */
export function follow(whether) {
  isWriting = whether;
}

export function toEnd() {
  following = true;
  root.scrollTop = root.scrollHeight;
  byId("latest").hidden = true;
}

export function startFollowing() {
  addEventListener("scroll", look, { passive: true });
  addEventListener("resize", grew);
  new ResizeObserver(grew).observe(byId("turns"));
  byId("latest").addEventListener("click", () => {
    toEnd();
    byId("question").focus({ preventScroll: true });
  });
}
