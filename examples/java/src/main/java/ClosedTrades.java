import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;

/** Closed trades to execution.trade.closed: one fill a line on standard input, JSON. */
public final class ClosedTrades {
    public static void main(String[] args) throws Exception {
        Wire wire = new Wire("execution.trade.closed");
        ObjectMapper json = new ObjectMapper();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        try (KafkaProducer<String, byte[]> producer = new KafkaProducer<>(Wire.client())) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                GenericRecord trade = record(wire.schema, closed((ObjectNode) json.readTree(line)));
                String symbol = trade.get("symbol").toString();
                RecordMetadata at = producer.send(new ProducerRecord<>(wire.topic, symbol, wire.encode(trade))).get();
                System.out.println(at.topic() + "-" + at.partition() + "@" + at.offset());
            }
        }
    }

    /** The trade of a fill: what follows from prices, quantity and costs is reckoned here. */
    private static ObjectNode closed(ObjectNode fill) {
        double entry = fill.get("entry_price").asDouble(), quantity = fill.get("quantity").asDouble();
        double equity = fill.get("equity_at_open").asDouble();
        int sign = fill.get("side").asText().equals("LONG") ? 1 : -1;
        double risk = Math.abs(entry - fill.get("stop_price").asDouble()) * quantity;
        double pnl = sign * (fill.get("exit_price").asDouble() - entry) * quantity
            - fill.get("fees").asDouble() - fill.get("funding").asDouble();
        return fill.put("notional_at_open", entry * quantity).put("leverage", entry * quantity / equity)
            .put("risk_at_open", risk).put("pnl_usd", pnl).put("pnl_pct", pnl / equity).put("r_multiple", pnl / risk);
    }

    /** JSON as a record of a schema; fields that are left out take their default. */
    private static GenericRecord record(Schema schema, JsonNode from) {
        GenericRecordBuilder builder = new GenericRecordBuilder(schema);
        for (Schema.Field field : schema.getFields()) {
            JsonNode value = from.get(field.name());
            if (value != null) builder.set(field, value.isNull() ? null : typed(field.schema(), value));
        }
        return builder.build();
    }

    private static Object typed(Schema schema, JsonNode value) {
        return switch (schema.getType()) {
            case UNION -> typed(schema.getTypes().get(1), value); // ["null", type]
            case ENUM -> new GenericData.EnumSymbol(schema, value.asText());
            case LONG -> value.asLong();
            case DOUBLE -> value.asDouble();
            default -> value.asText();
        };
    }
}
