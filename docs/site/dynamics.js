// Stochastic gradient descent in the plane, as reproduction.experiments.stationary_conditions has it, and on the two
// neurons of reproduction.theory.two_neurons.
"use strict";
const dynamics = {
  // The gradient of one sample's loss at (u, w): (wu - y)² for "rescaling", -a‖θ‖² + ‖θ‖⁴ for "rotation", and
  // (tanh ux + tanh wx - y)² for "exchange", whose samples are pairs (x, y).
  gradient(landscape, [u, w], sample) {
    if (landscape === "exchange") {
      const [x, y] = sample;
      const [first, second] = [Math.tanh(u * x), Math.tanh(w * x)];
      const error = first + second - y;
      return [2 * error * (1 - first * first) * x, 2 * error * (1 - second * second) * x];
    }
    if (landscape === "rescaling") {
      const error = u * w - sample;
      return [2 * error * w, 2 * error * u];
    }
    const factor = 4 * (u * u + w * w) - 2 * sample;
    return [factor * u, factor * w];
  },

  loss(landscape, [u, w], sample) {
    if (landscape === "exchange") {
      const [x, y] = sample;
      return (Math.tanh(u * x) + Math.tanh(w * x) - y) ** 2;
    }
    if (landscape === "rescaling") return (u * w - sample) ** 2;
    const square = u * u + w * w;
    return -sample * square + square * square;
  },

  // All positions, the start first, one step for each sample.
  trajectory(landscape, start, rate, samples) {
    const path = [start];
    for (const sample of samples) {
      const here = path[path.length - 1];
      const slope = dynamics.gradient(landscape, here, sample);
      path.push([here[0] - rate * slope[0], here[1] - rate * slope[1]]);
    }
    return path;
  },

  // The distance to the nearest of lines through the origin, of which the unit vectors across are given.
  distance([u, w], normals) {
    return Math.min(...normals.map(([a, b]) => Math.abs(u * a + w * b)));
  },

  // A source of numbers between 0 and 1 (mulberry32).
  uniform(seed) {
    let state = (seed + 1) * 0x9e3779b9;
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return (((mixed ^ (mixed >>> 14)) >>> 0) + 0.5) / 4294967296;
    };
  },

  // Standard normal numbers of a seed (Box and Muller).
  normal(seed, count) {
    const uniform = dynamics.uniform(seed);
    return Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
  },
};
