import java.time.Duration;
import java.util.*;
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
    private final Wire applied = new Wire("policy.applied"), outcomes = new Wire("decision.outcome");
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
        Contract chosen = Contract.choose(d, policies.get(String.valueOf(d.get("policy_id"))));
        // Here the orders go out.
        if (d.get("policy_id") != null) send(applied, chosen.report(applied.schema, d, applier));
        GenericRecord ended = chosen.outcome(outcomes.schema, d);
        if (ended != null) send(outcomes, ended);
        System.out.printf("%s: %s %+d, %s%n", d.get("decision_id"), chosen.action(), chosen.side(), chosen.why());
    }

    private void send(Wire wire, GenericRecord record) throws Exception {
        producer.send(new ProducerRecord<>(wire.topic, record.get("symbol").toString(), wire.encode(record))).get();
    }
}
