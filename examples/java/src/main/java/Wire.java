import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.stream.Collectors;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.message.BinaryMessageDecoder;
import org.apache.avro.message.BinaryMessageEncoder;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;

/** Records as Quantum Streams writes and reads them: C3 01, the CRC-64-AVRO of the writer's schema, then Avro. */
final class Wire {
    private static final Path SCHEMAS = Path.of(System.getenv().getOrDefault("QUANTUM_SCHEMAS", "schemas"));
    final String topic;
    final Schema schema;
    private final BinaryMessageEncoder<GenericRecord> encoder;
    private final BinaryMessageDecoder<GenericRecord> decoder;

    /** Encodes by the newest schema of a topic, decodes what any release wrote. */
    Wire(String name) {
        topic = System.getenv().getOrDefault("QUANTUM_TOPIC_PREFIX", "") + name;
        schema = parsed(SCHEMAS.resolve("avsc/" + name + ".avsc"));
        encoder = new BinaryMessageEncoder<>(GenericData.get(), schema);
        decoder = new BinaryMessageDecoder<>(GenericData.get(), schema);
        try (DirectoryStream<Path> released = Files.newDirectoryStream(SCHEMAS.resolve("history/" + name), "*.avsc")) {
            released.forEach(file -> decoder.addSchema(parsed(file)));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static Schema parsed(Path file) {
        try {
            return new Schema.Parser().parse(file.toFile());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    List<TopicPartition> partitions(KafkaConsumer<?, ?> consumer) {
        return consumer.partitionsFor(topic).stream().map(p -> new TopicPartition(topic, p.partition()))
            .collect(Collectors.toCollection(ArrayList::new));
    }

    byte[] encode(GenericRecord record) throws IOException {
        ByteBuffer bytes = encoder.encode(record);
        byte[] out = new byte[bytes.remaining()];
        bytes.get(out);
        return out;
    }

    /** Throws MissingSchemaException where no schema here has the record's mark: fetch the newest schemas then. */
    GenericRecord decode(byte[] value) throws IOException {
        return decoder.decode(ByteBuffer.wrap(value));
    }

    /** What every client needs; keys are text, values bytes. */
    static Properties client() {
        Properties p = new Properties();
        p.put("bootstrap.servers", System.getenv().getOrDefault("QUANTUM_BROKER", "127.0.0.1:19092"));
        p.put("enable.idempotence", "true");
        p.put("enable.auto.commit", "false");
        p.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        p.put("value.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer");
        p.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        p.put("value.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
        return p;
    }
}
