// Runs TensorFlow.js's optimizers: reads cases from standard input, writes their paths, both JSON.
"use strict";
const fs = require("fs");

console.warn = () => {}; // tfjs recommends its native backend
const tf = require("@tensorflow/tfjs");

async function run({ make, args, weights, rates, shapes, params, gradients }) {
  const variables = params.map((values, k) => tf.variable(tf.tensor(values, shapes[k])));
  const optimizer = tf.train[make](...args);
  if (weights) {
    await optimizer.setWeights(
      weights.map(({ name, tensor }) => ({ name, tensor: tf.tensor(tensor) }))
    );
  }
  const path = gradients.map((grads, call) => {
    if (rates) {
      // Rules that keep a tensor of their rate have a setter for it, the others read the property.
      optimizer.setLearningRate?.(rates[call]);
      optimizer.learningRate = rates[call];
    }
    const tensors = grads.map((g, k) => g && tf.tensor(g, shapes[k]));
    optimizer.applyGradients(variables.map((v, k) => ({ name: v.name, tensor: tensors[k] })));
    return variables.map((v) => Array.from(v.dataSync(), String)); // JSON has no NaN
  });
  const kept = optimizer.getClassName() === "Adamax" ? [] : await optimizer.getWeights();
  const state = kept.map(({ name, tensor }) => ({ name, tensor: tensor.arraySync() }));
  tf.disposeVariables();
  return { path, state };
}

(async () => {
  await tf.setBackend("cpu");
  const paths = [], states = [];
  for (const request of JSON.parse(fs.readFileSync(0, "utf8"))) {
    const { path, state } = await run(request);
    paths.push(path);
    states.push(state);
  }
  process.stdout.write(JSON.stringify({ version: tf.version.tfjs, paths, states }));
})();
