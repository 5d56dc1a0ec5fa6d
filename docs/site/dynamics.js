// Stochastic gradient descent in the plane, as reproduction.experiments.stationary_conditions has it.
"use strict";
const dynamics = {
  // The gradient of one sample's loss at (u, w): (wu - y)² for "rescaling", -a‖θ‖² + ‖θ‖⁴ for "rotation".
  gradient(landscape, [u, w], sample) {
    if (landscape === "rescaling") {
      const error = u * w - sample;
      return [2 * error * w, 2 * error * u];
    }
    const factor = 4 * (u * u + w * w) - 2 * sample;
    return [factor * u, factor * w];
  },

  loss(landscape, [u, w], sample) {
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

  // The distance to the nearer of two lines through the origin, whose unit vectors are at a right angle.
  distance([u, w], frame) {
    return Math.min(...frame.map(([a, b]) => Math.abs(u * a + w * b)));
  },

  // Standard normal numbers of a seed (mulberry32, Box and Muller).
  normal(seed, count) {
    let state = (seed + 1) * 0x9e3779b9;
    const uniform = () => {
      state = (state + 0x6d2b79f5) | 0;
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return (((mixed ^ (mixed >>> 14)) >>> 0) + 0.5) / 4294967296;
    };
    return Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
  },
};
