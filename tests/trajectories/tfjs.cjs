// Runs TensorFlow.js's optimizers: reads cases from standard input, writes their paths, both JSON.
"use strict";
const fs = require("fs");

console.warn = () => {}; // tfjs recommends its native backend
const tf = require("@tensorflow/tfjs");

function run({ make, args, rates, shapes, params, gradients }) {
  const variables = params.map((values, k) => tf.variable(tf.tensor(values, shapes[k])));
  const optimizer = tf.train[make](...args);
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
  tf.disposeVariables();
  return path;
}

(async () => {
  await tf.setBackend("cpu");
  const cases = JSON.parse(fs.readFileSync(0, "utf8"));
  process.stdout.write(JSON.stringify({ version: tf.version.tfjs, paths: cases.map(run) }));
})();
