// Writes and reads in Proa with ioredis: node redis_client.js HOST:PORT
const Redis = require('ioredis') // npm install ioredis

async function main () {
  const r = new Redis(`redis://${process.argv[2]}`)
  await r.set('greeting', 'hello', 'EX', 3600)
  console.log(await r.get('greeting'))

  // MULTI and EXEC, atomic
  const [[, visits]] = await r.multi().incr('visits').expire('visits', 3600).exec()
  console.log(visits)

  if (await r.get('nothing') === null) console.log('not found')
  r.disconnect()
}

main().catch((err) => { console.error(err); process.exit(1) })
