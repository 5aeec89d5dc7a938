#!/usr/bin/env bash
# One would guess that tf.train.adadelta of TensorFlow.js is Adadelta: steps that hardly depend on
# the gradient's size, since they are divided by its running average.
# It is plain gradient descent, bit by bit and whatever rho and epsilon are. It divides by the
# average from before the step; that one and the average of squared updates then both start at 0,
# so their quotient is 1, the update is the gradient, and the two averages stay equal forever.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# The optimizers of @tensorflow/tfjs are those of its part tfjs-core.
npm install --silent --no-audit --no-fund \
    @tensorflow/tfjs-core@4.22.0 @tensorflow/tfjs-backend-cpu@4.22.0

node - <<'END'
const assert = require('node:assert');
const tf = require('@tensorflow/tfjs-core');
require('@tensorflow/tfjs-backend-cpu');

// Of sizes from 1e-6 to 1e6.
const gradients = Array.from({length: 100}, (_, step) =>
    Float32Array.from([1, 2, 3], (k) => Math.sin(7 * step + k) * 10 ** ((5 * step + k) % 13 - 6)));

function train(optimizer, gradients) {
  const param = tf.variable(tf.tensor1d([1, -2, 3]));
  for (const gradient of gradients) {
    optimizer.applyGradients({[param.name]: tf.tensor1d(gradient)});
  }
  return param.dataSync();
}

console.log(`tfjs-core ${tf.version_core}: Adadelta's parameters after ${gradients.length} steps`);
const descended = train(tf.train.sgd(0.1), gradients);
console.log('gradient descent          ', descended);
for (const [rho, epsilon] of [[0.95, 1e-7], [0.5, 1e-3]]) {
  const params = train(tf.train.adadelta(0.1, rho, epsilon), gradients);
  console.log(`Adadelta, rho ${rho}, epsilon ${epsilon}`, params);
  assert.deepStrictEqual(params, descended);
}

const [first] = train(tf.train.adadelta(1, 0.95, 1e-7), [[1000, 0, 0]]);
const paper = Math.sqrt(1e-7) / Math.sqrt(0.05 * 1000 ** 2 + 1e-7) * 1000;
console.log(`first step at gradient 1000: ${1 - first}, in the paper ${paper.toFixed(5)}`);
assert.strictEqual(1 - first, 1000);
END
