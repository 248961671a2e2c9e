// Lets a test look around between two pieces of a script: each ends with a line that the test waits
// for, and the next begins when the test has answered.
import { createInterface } from "node:readline";

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export async function step(): Promise<void> {
  console.log("--- done ---");
  await answers.next();
}
