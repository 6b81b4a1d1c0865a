import java.util.List;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;

/** What a subscriber owes: which action to execute, what it reports, how a decision ends that leads to no trade. */
record Contract(String action, int side, String why) {
    private static final List<String> STRATEGIES = List.of("trend_following", "mean_reversion", "breakout", "neutral");

    /** The action to execute, its direction (1 long, -1 short, 0 none); `policy`: the newest held, or null. */
    static Contract choose(GenericRecord decision, GenericRecord policy) {
        Long until = policy == null ? null : (Long) policy.get("valid_until_ms");
        if (decision.get("policy_id") == null) return of(decision, text(decision, "action"), "no policy yet");
        if (policy == null) return of(decision, text(decision, "baseline_action"), "its policy is unknown");
        if (text(policy, "status").equals("RETIRED"))
            return of(decision, text(policy, "fallback"), "its policy is retired");
        if (until != null && (Long) decision.get("ts_ms") > until)
            return of(decision, text(policy, "fallback"), "its policy is past its end");
        return of(decision, text(decision, "action"), "as recommended");
    }

    private static Contract of(GenericRecord decision, String action, String why) {
        int side = (Integer) ((List<?>) decision.get("signals")).get(STRATEGIES.indexOf(action));
        return new Contract(side == 0 ? "neutral" : action, side, why);
    }

    /** The record for policy.applied. */
    GenericRecord report(Schema schema, GenericRecord decision, String applier) {
        GenericRecord report = same(schema, decision, "policy_id", "policy_version");
        report.put("baseline_action", text(decision, "baseline_action"));
        report.put("recommended_action", text(decision, "action"));
        report.put("executed_action", action);
        report.put("applier", applier);
        return report;
    }

    /** The record for decision.outcome; null where the decision's trade will end it. */
    GenericRecord outcome(Schema schema, GenericRecord decision) {
        boolean other = why.startsWith("its policy"); // something else than the decision was executed
        if (!other && side != 0) return null;
        GenericRecord outcome = same(schema, decision, "book_id");
        Schema status = schema.getField("status").schema();
        outcome.put("status", new GenericData.EnumSymbol(status, other ? "NOT_EXECUTED" : "NEUTRAL"));
        outcome.put("reason", other ? why : null);
        return outcome;
    }

    private static GenericRecord same(Schema schema, GenericRecord decision, String... more) {
        GenericRecord out = new GenericData.Record(schema);
        for (String name : List.of("decision_id", "symbol", "ts_ms", "source", "origin"))
            out.put(name, decision.get(name));
        for (String name : more) out.put(name, decision.get(name));
        return out;
    }

    private static String text(GenericRecord record, String field) { return record.get(field).toString(); }
}
