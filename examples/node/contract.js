/** What a subscriber owes: which action to execute, and how a decision ends that leads to no trade. */
const STRATEGIES = ['trend_following', 'mean_reversion', 'breakout', 'neutral'];

function allowed(decision, policy) {
  if (decision.policy_id === null) return [decision.action, 'no policy yet'];
  if (policy === undefined) return [decision.baseline_action, 'its policy is unknown'];
  if (policy.status === 'RETIRED') return [policy.fallback, 'its policy is retired'];
  if (policy.valid_until_ms !== null && decision.ts_ms > policy.valid_until_ms)
    return [policy.fallback, 'its policy is past its end'];
  return [decision.action, 'as recommended'];
}

/** The action to execute, its direction (1 long, -1 short, 0 none), and why; `policy`: the newest held, or undefined. */
export function choose(decision, policy) {
  const [action, why] = allowed(decision, policy);
  const side = decision.signals[STRATEGIES.indexOf(action)];
  return [side ? action : 'neutral', side, why];
}

/** The record for decision.outcome; undefined where the decision's trade will end it. */
export function outcome(decision, side, why) {
  // something else than the decision was executed
  if (why.startsWith('its policy')) return { ...decision, status: 'NOT_EXECUTED', reason: why };
  return side ? undefined : { ...decision, status: 'NEUTRAL', reason: null };
}
