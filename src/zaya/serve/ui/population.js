// Stands in for the view of a population: what happens, in words.

export class PopulationView {
  constructor(root) {
    this.line = document.createElement("p");
    this.line.className = "note";
    root.append(this.line);
  }

  begin({ population, rounds }) {
    this.population = population;
    this.rounds = rounds;
    this.ended = 0;
    this.line.textContent = `${population} attempts, ${rounds + 1} rounds`;
  }

  feed(events) {
    this.ended += events.filter((event) => event.kind === "end").length;
    this.line.textContent = `${this.ended} attempts have ended`;
  }

  finish(block) {
    this.line.textContent = `Answers: ${block.tally.map(({ answer, count }) => `${answer} (${count})`).join(", ")}`;
  }

  fail(message) {
    this.line.textContent = message;
  }
}
