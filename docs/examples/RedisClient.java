// Writes and reads in Proa with Jedis 5: RedisClient HOST PORT
import redis.clients.jedis.JedisPooled;
import redis.clients.jedis.params.SetParams;

public class RedisClient {
    public static void main(String[] args) {
        try (JedisPooled r = new JedisPooled(args[0], Integer.parseInt(args[1]))) {
            r.set("greeting", "hello", SetParams.setParams().ex(3600));
            System.out.println(r.get("greeting"));

            System.out.println(r.incr("visits"));

            if (r.get("nothing") == null) {
                System.out.println("not found");
            }
        }
    }
}
