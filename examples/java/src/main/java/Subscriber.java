import java.time.Duration;
import java.util.*;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/** A trading service: applies q_learning's policies to the decisions of its symbols, and reports on policy.applied. */
public final class Subscriber {
    private static final long GRACE_MS = 5000; // how long a decision waits for the policy version that it names
    private record Waiting(long untilMs, GenericRecord decision) {}
    private final KafkaConsumer<String, byte[]> consumer = new KafkaConsumer<>(Wire.client());
    private final KafkaProducer<String, byte[]> producer = new KafkaProducer<>(Wire.client());
    private final Wire current = new Wire("policy.current"), decided = new Wire("rl.meta.strategy_selected");
    private final Wire applied = new Wire("policy.applied");
    private final Map<String, GenericRecord> policies = new HashMap<>();
    private final Deque<Waiting> waiting = new ArrayDeque<>();

    public static void main(String[] args) throws Exception {
        new Subscriber().run(args[0], List.of(args).subList(1, args.length));
    }

    private void run(String applier, List<String> symbols) throws Exception {
        List<TopicPartition> from = current.partitions(consumer), all = decided.partitions(consumer);
        Map<TopicPartition, Long> now = consumer.endOffsets(all), left = new HashMap<>(consumer.endOffsets(from));
        all.addAll(from);
        consumer.assign(all);
        consumer.seekToBeginning(from);
        now.forEach(consumer::seek); // decisions from now on; older ones are too late to execute
        while (true) {
            for (ConsumerRecord<String, byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                if (r.topic().equals(current.topic) && r.value() == null) {
                    policies.remove(r.key()); // retired seven days ago: its key is freed
                } else if (r.topic().equals(current.topic)) {
                    policies.merge(r.key(), current.decode(r.value()), (a, b) -> version(b) > version(a) ? b : a);
                } else {
                    GenericRecord d = decided.decode(r.value());
                    if (symbols.contains(d.get("symbol").toString()) && "q_learning".equals(d.get("book_id").toString()))
                        waiting.add(new Waiting(System.currentTimeMillis() + GRACE_MS, d));
                }
            }
            if (left.entrySet().removeIf(e -> consumer.position(e.getKey()) >= e.getValue()) && left.isEmpty())
                System.out.println("ready with " + policies.size() + " policies"); // read to the end: now it may act
            while (left.isEmpty() && !waiting.isEmpty() && (known(waiting.peek().decision)
                    || System.currentTimeMillis() > waiting.peek().untilMs)) execute(applier, waiting.poll().decision);
        }
    }

    private static long version(GenericRecord policy) { return (Long) policy.get("version"); }
    /** Whether the version that a decision names, or a later one, is held. */
    private boolean known(GenericRecord d) {
        GenericRecord held = policies.get(String.valueOf(d.get("policy_id")));
        return d.get("policy_id") == null || held != null && version(held) >= (Long) d.get("policy_version");
    }

    /** Choose the action, trade it, and say what was done. */
    private void execute(String applier, GenericRecord d) throws Exception {
        GenericRecord policy = policies.get(String.valueOf(d.get("policy_id")));
        Long until = policy == null ? null : (Long) policy.get("valid_until_ms");
        String why = d.get("policy_id") == null ? "no policy yet" : policy == null ? "its policy is unknown"
            : policy.get("status").toString().equals("RETIRED") ? "its policy is retired"
            : until != null && (Long) d.get("ts_ms") > until ? "its policy is past its end" : "as recommended";
        Object action = d.get("policy_id") == null || why.equals("as recommended") ? d.get("action")
            : policy == null ? d.get("baseline_action") : policy.get("fallback");
        // Here the orders go out.
        System.out.println(d.get("decision_id") + ": " + action + ", " + why);
        if (d.get("policy_id") == null) return; // nothing to report
        GenericRecord report = new GenericData.Record(applied.schema);
        for (String same : List.of("decision_id", "symbol", "ts_ms", "policy_id", "policy_version", "source", "origin"))
            report.put(same, d.get(same));
        report.put("baseline_action", d.get("baseline_action").toString());
        report.put("recommended_action", d.get("action").toString());
        report.put("executed_action", action.toString());
        report.put("applier", applier);
        producer.send(new ProducerRecord<>(applied.topic, d.get("symbol").toString(), applied.encode(report))).get();
    }
}
