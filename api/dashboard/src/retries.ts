// When a failing execution is tried again, without jitter.

export interface Retry {
  maxAttempts?: number;
  initialDelaySeconds?: number;
  multiplier?: number;
  maxDelaySeconds?: number;
  jitter?: number;
  maxAgeSeconds?: number | null;
}

/** Seconds after the first attempt at which each attempt is made; attempts beyond `maxAgeSeconds` are left out. */
export function attemptTimes(retry: Retry, most = 50): number[] {
  const { maxAttempts = 5, initialDelaySeconds = 1, multiplier = 2, maxDelaySeconds = 300, maxAgeSeconds = null } = retry;
  const times = [0];
  let at = 0;
  let delay = initialDelaySeconds;
  while (times.length < Math.min(maxAttempts, most)) {
    at += Math.min(delay, maxDelaySeconds);
    if (maxAgeSeconds !== null && at > maxAgeSeconds) break;
    times.push(at);
    delay *= multiplier;
  }
  return times;
}
