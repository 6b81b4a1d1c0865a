import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;

/** Everything on topics as JSON lines. */
public final class Show {
    public static void main(String[] topics) throws Exception {
        try (KafkaConsumer<String, byte[]> consumer = new KafkaConsumer<>(Wire.client())) {
            for (String topic : topics) {
                Wire wire = new Wire(topic);
                List<TopicPartition> all = wire.partitions(consumer);
                consumer.assign(all);
                consumer.seekToBeginning(all);
                Map<TopicPartition, Long> ends = consumer.endOffsets(all);
                while (all.stream().anyMatch(p -> consumer.position(p) < ends.get(p)))
                    for (ConsumerRecord<String, byte[]> r : consumer.poll(Duration.ofSeconds(1)))
                        if (r.value() != null) System.out.println(wire.decode(r.value()));
            }
        }
    }
}
