// The view alone on a page, with the policy of the server's own page; tests drive it through `window`.
import { PopulationView } from "/ui/population.js";

window.opened = [];
window.PopulationView = PopulationView;
window.view = new PopulationView(document.getElementById("view"), { onChoose: (chosen) => window.opened.push(chosen) });
