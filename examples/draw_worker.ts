// The tool `draw` of examples/anywhere.py, as an activity in TypeScript: a worker that knows nothing of
// Perdure, its database or its agents. docs/tools.md says how to run it.
import { Context } from "@temporalio/activity";
import { NativeConnection, Worker } from "@temporalio/worker";

interface Call<Arguments> {
  session: string;
  invocation_id: string;
  call_id: string;
  idempotency_key: string;
  name: string;
  arguments: Arguments;
}

async function draw(call: Call<{ sides: number; size: number }>): Promise<object> {
  const { sides, size } = call.arguments;
  if (sides < 3) throw new Error(`a shape has 3 sides or more, and not ${sides}`);
  const points = [];
  for (let side = 0; side < sides; side++) {
    Context.current().heartbeat(); // so that a death is noticed, and a cancel heard of
    await Context.current().sleep(1); // here it is felt, and so is that the worker stops
    const angle = (2 * Math.PI * side) / sides;
    points.push([Math.sin(angle), Math.cos(angle)].map((at) => Math.round(size * (1 + at))).join(","));
  }
  return { svg: `<svg><polygon points="${points.join(" ")}"/></svg>` };
}

const address = process.env.TEMPORAL_ADDRESS ?? "127.0.0.1:7233";
const connection = await NativeConnection.connect({ address });
const worker = await Worker.create({ connection, taskQueue: "drawing", activities: { draw } });
console.log("ready to draw");
await worker.run();
await connection.close();
