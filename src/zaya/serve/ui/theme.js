// Before anything is painted: the theme that was chosen here, if one was. No module, as modules run later.
"use strict";
try {
  const theme = localStorage.getItem("zaya.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // a browser that keeps nothing has the system's
}
