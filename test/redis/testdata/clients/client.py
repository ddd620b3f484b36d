# usage: client.py redis-py MODE ADDRESS,... PREFIX COUNT ALONE; see client.js
import sys
import redis
from redis.cluster import ClusterNode, RedisCluster

_, mode, addresses, prefix, count, alone = sys.argv[1:]
nodes = [(a.rsplit(":", 1)[0], int(a.rsplit(":", 1)[1])) for a in addresses.split(",")]
keys = [prefix + str(i) for i in range(int(count))]
if mode == "cluster":
    r = RedisCluster(startup_nodes=[ClusterNode(h, p) for h, p in nodes])
else:
    r = redis.Redis(*nodes[0])
if alone == "1" and mode == "single":
    half = len(keys) // 2
    r.mset({k: "v" for k in keys[half:]})
    p = r.pipeline()  # MULTI and EXEC
    for k in keys[:half]:
        p.set(k, "v")
    p.execute()
else:
    for k in keys:
        r.set(k, "v")
for k in r.scan_iter(match=prefix + "*", count=50):
    print("key", k.decode())
if mode == "cluster":
    print("size", r.dbsize(target_nodes=RedisCluster.PRIMARIES))  # its own choice is any one node
else:
    print("size", r.dbsize())
