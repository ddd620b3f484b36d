// usage: node client.js CLIENT MODE ADDRESS,... PREFIX COUNT ALONE
//
// Writes COUNT keys that begin with PREFIX, walks over the whole keyspace in the
// library's way, and prints "key K" for each key of those as often as it is met,
// and "size N" for DBSIZE. MODE is single or cluster. ALONE is 1 where one command
// may name any keys.
'use strict'
const [client, mode, addresses, prefix, countText, alone] = process.argv.slice(2)
const count = Number(countText)
const nodes = addresses.split(',').map((a) => {
  const at = a.lastIndexOf(':')
  return { host: a.slice(0, at), port: Number(a.slice(at + 1)) }
})
const urls = nodes.map((n) => `redis://${n.host}:${n.port}`)
const keys = Array.from({ length: count }, (_, i) => prefix + i)
const found = (key) => console.log('key ' + key)
const size = (n) => console.log('size ' + n)

async function ioredis () {
  const Redis = require('ioredis')
  const r = mode === 'cluster' ? new Redis.Cluster(nodes) : new Redis(nodes[0])
  if (alone === '1' && mode === 'single') {
    await r.mset(...keys.slice(count / 2).flatMap((k) => [k, 'v']))
    const m = r.multi()
    for (const k of keys.slice(0, count / 2)) m.set(k, 'v')
    for (const [err] of await m.exec()) if (err) throw err
  } else {
    await Promise.all(keys.map((k) => r.set(k, 'v')))
  }
  let total = 0
  for (const node of mode === 'cluster' ? r.nodes('master') : [r]) {
    for await (const page of node.scanStream({ match: prefix + '*', count: 50 })) page.forEach(found)
    total += await node.dbsize()
  }
  size(total)
  r.disconnect()
}

async function nodeRedis (library) {
  const { createClient, createCluster } = require(library)
  const r = mode === 'cluster'
    ? createCluster({ rootNodes: urls.map((url) => ({ url })) })
    : createClient({ url: urls[0] })
  r.on('error', (err) => console.error(err))
  await r.connect()
  if (alone === '1' && mode === 'single') {
    await r.mSet(keys.slice(count / 2).map((k) => [k, 'v']))
    const m = r.multi()
    for (const k of keys.slice(0, count / 2)) m.set(k, 'v')
    await m.exec()
  } else {
    await Promise.all(keys.map((k) => r.set(k, 'v')))
  }
  let total = 0
  // node-redis 4 lists a master as often as it has ranges of slots.
  const masters = mode === 'cluster' ? await Promise.all([...new Set(r.masters)].map((m) => r.nodeClient(m))) : [r]
  for (const node of masters) {
    for await (const page of node.scanIterator({ MATCH: prefix + '*', COUNT: 50 })) [page].flat().forEach(found)
    total += await node.dbSize()
  }
  size(total)
  await (r.close ? r.close() : r.quit())
}

async function keyv () {
  const { default: Keyv } = require('keyv')
  const { default: KeyvRedis } = require('@keyv/redis')
  const store = new KeyvRedis(mode === 'cluster' ? { rootNodes: urls.map((url) => ({ url })) } : urls[0])
  const k = new Keyv({ store, namespace: prefix, useKeyPrefix: false, throwOnErrors: true })
  k.on('error', (err) => { throw err })
  if (alone === '1') {
    await k.setMany(keys.map((key) => ({ key, value: 'v' })))
  } else {
    for (const key of keys) await k.set(key, 'v')
  }
  for await (const [key] of k.iterator(prefix)) found(key)
  await k.disconnect()
}

const run = { ioredis, redis4: () => nodeRedis('redis4'), redis5: () => nodeRedis('redis5'), keyv }
run[client]().catch((err) => { console.error(err); process.exit(1) })
