"""Writes and reads in Proa with redis-py: redis_client.py HOST:PORT"""
import sys

import redis  # pip install redis, or Debian's python3-redis

r = redis.Redis.from_url(f"redis://{sys.argv[1]}", decode_responses=True)
r.set("greeting", "hello", ex=3600)
print(r.get("greeting"))

with r.pipeline(transaction=True) as tx:  # MULTI and EXEC, atomic
    tx.incr("visits")
    tx.expire("visits", 3600)
    print(tx.execute()[0])

if r.get("nothing") is None:
    print("not found")
r.close()
