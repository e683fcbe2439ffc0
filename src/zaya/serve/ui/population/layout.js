// Where everything goes: pure geometry, from a width and the sizes of rounds to boxes and curves.
//
// Rounds are rows. A card is, from its top: slips of what it reads, its head, its answer, and a page that is written on
// from top to bottom, so that what it hands on, its end, is at the bottom. Where cards do not fit into one line they
// wrap, and where they are many they are squares. Used by population.js; heights are those of population.css.

const GAP = 6;
const LEAST = 46; // of a card in one line
const WRAPPED = 52;
const MOST = 116;
const MANY = 32; // above so many that do not fit into a line, cards are squares
const SIDE = 200; // what stands beside the cards of a round
const BESIDE = 820; // from this width on
const SLIPS = 6;
const HEAD = 20;
const CHIP = 20;
const LEAST_INK = 3;

const fit = (room, count) => Math.floor((room - GAP * (count - 1)) / count);

export function layout(width, sizes) {
  const most = Math.max(1, ...sizes);
  let side = width >= BESIDE;
  if (side && fit(width - SIDE - 16, most) < LEAST && fit(width, most) >= LEAST) side = false;
  const left = side ? SIDE + 16 : 0;
  const room = Math.max(60, width - left);
  const one = fit(room, most);
  const kind = one >= LEAST ? "line" : most <= MANY ? "wrapped" : "dense";
  const gap = kind === "dense" ? 3 : GAP;
  const page = kind === "dense" ? 24 : width < 480 ? 30 : 50;
  const high = kind === "dense" ? 24 : SLIPS + HEAD + CHIP + page + 2;
  const wide = kind === "dense" ? 24 : kind === "line" ? Math.min(MOST, one) : null;
  const perLine = Math.max(1, Math.floor((room + gap) / ((wide ?? WRAPPED) + gap)));
  const widest = Math.ceil(most / Math.ceil(most / perLine)); // cards in a line of the largest round
  const between = kind === "line" ? 60 : 26;
  const labelHigh = side ? 0 : width < 560 ? 46 : 26;

  let y = 0;
  const rounds = sizes.map((size) => {
    const lines = Math.max(1, Math.ceil(size / perLine));
    const across = Math.max(1, Math.ceil(size / lines));
    const cardWide = wide ?? Math.min(MOST, fit(room, widest));
    const start = left + Math.max(0, Math.floor((room - across * (cardWide + gap) + gap) / 2));
    const label = { x: 0, y, w: side ? SIDE : width, h: side ? 92 : labelHigh };
    const top = y + labelHigh;
    const cards = Array.from({ length: size }, (_, i) => ({
      x: start + (i % across) * (cardWide + gap),
      y: top + Math.floor(i / across) * (high + gap),
      w: cardWide,
      h: high,
    }));
    y = Math.max(top + lines * (high + gap) - gap, y + (side ? 92 : 0)) + between;
    return { label, cards, lines, across };
  });
  const answer = { x: left, y, w: room, h: width < 560 ? 84 : 64 };
  return {
    kind, side, width, rounds, answer,
    height: answer.y + answer.h,
    page,
    isTight: rounds.some(({ cards }) => cards.some((card) => card.w < 64)),
    drawsLines: kind === "line",
    hasSlips: kind !== "dense",
    inkTop: kind === "dense" ? 0 : SLIPS + HEAD + CHIP + 2,
    ink: kind === "dense" ? 24 : page - 4,
  };
}

// How far down a page is written on, and how much of that is the tail; in pixels of `ink`.
export function written(tokens, budget, tail, ink) {
  if (!tokens) return { full: 0, tail: 0 };
  const scale = ink / Math.max(budget, tokens, 1);
  const full = Math.min(ink, Math.max(LEAST_INK, Math.round(tokens * scale)));
  return { full, tail: tail ? Math.min(full, Math.max(LEAST_INK, Math.round(Math.min(tail, tokens) * scale))) : 0 };
}

// From the end of what is written on one card to the slip, one of `count`, on top of another.
export function link(from, end, to, slip, count) {
  const x1 = from.x + from.w / 2;
  const y1 = from.y + end;
  const bottom = from.y + from.h;
  const x2 = to.x + 4 + ((to.w - 8) * (slip + 0.5)) / Math.max(1, count);
  const y2 = to.y;
  const bend = Math.max(16, (y2 - bottom) * 0.55);
  return `M${r(x1)} ${r(y1)}V${r(bottom)}C${r(x1)} ${r(bottom + bend)} ${r(x2)} ${r(y2 - bend)} ${r(x2)} ${r(y2)}`;
}

const r = (value) => Math.round(value * 10) / 10;

// The card above or below another: the nearest of the round beyond, or of the next line of its own.
export function neighbour(found, round, worker, step) {
  const { cards, across } = found.rounds[round];
  const own = worker + step * across;
  if (own >= 0 && own < cards.length) return { round, worker: own };
  const beyond = found.rounds[round + step];
  if (!beyond || !beyond.cards.length) return { round, worker };
  const x = cards[worker].x + cards[worker].w / 2;
  const edge = step > 0 ? beyond.cards[0].y : beyond.cards[beyond.cards.length - 1].y;
  let best = 0;
  let least = Infinity;
  beyond.cards.forEach((card, i) => {
    const away = Math.abs(card.x + card.w / 2 - x) + (card.y === edge ? 0 : 1e6);
    if (away < least) [best, least] = [i, away];
  });
  return { round: round + step, worker: best };
}
