// The page follows an answer for as long as its end is in sight, and offers to go back there otherwise.

import { byId } from "./dom.js";

const NEAR = 80;
let following = true;

const root = document.documentElement;
const atEnd = () => root.scrollHeight - root.clientHeight - root.scrollTop < NEAR;

function look() {
  following = atEnd();
  byId("latest").hidden = following;
}

/** Something has grown. */
export function follow() {
  if (following) root.scrollTop = root.scrollHeight;
  else byId("latest").hidden = atEnd();
}

export function toEnd() {
  following = true;
  root.scrollTop = root.scrollHeight;
  byId("latest").hidden = true;
}

export function startFollowing() {
  addEventListener("scroll", look, { passive: true });
  addEventListener("resize", follow);
  byId("latest").addEventListener("click", () => {
    toEnd();
    byId("question").focus({ preventScroll: true });
  });
}
