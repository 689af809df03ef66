// The attempts of a failing execution on a line of time. The scale is logarithmic: the first waits are short.
import { duration } from "../format";
import { attemptTimes, type Retry } from "../retries";

const WIDTH = 320;

export function RetryLine({ retry }: { retry: Retry }) {
  const times = attemptTimes(retry);
  const last = times[times.length - 1] ?? 0;
  const x = (seconds: number) => 8 + (last ? (Math.log1p(seconds) / Math.log1p(last)) * (WIDTH - 16) : 0);
  const words = times.length === 1 ? "One attempt, no retries" : `${retry.maxAttempts ?? 5} attempts within ${duration(last * 1000)}`;
  return (
    <div class="retry-line">
      <svg viewBox={`0 0 ${WIDTH} 26`} role="img" aria-label={`${words}: at ${times.map((t) => duration(t * 1000)).join(", ")}`}>
        <line class="axis" x1={8} y1={9} x2={WIDTH - 8} y2={9} />
        {times.map((t, i) => <circle key={i} class="attempt" cx={x(t)} cy={9} r={4}><title>{`Attempt ${i + 1}: ${duration(t * 1000)} after the first`}</title></circle>)}
        {times.length > 1 && <text x={WIDTH - 4} y={25} text-anchor="end">+{duration(last * 1000)}</text>}
        <text x={4} y={25}>first</text>
      </svg>
      <span class="faint">{words}{retry.jitter ? `, each wait up to ${Math.round((retry.jitter ?? 0) * 100)} % longer or shorter` : ""}</span>
    </div>
  );
}
