# usage: ruby client.rb redis-rb MODE ADDRESS,... PREFIX COUNT ALONE; see client.js
require "redis"

_, mode, addresses, prefix, count, alone = ARGV
count = count.to_i
urls = addresses.split(",").map { |a| "redis://#{a}" }
keys = (0...count).map { |i| "#{prefix}#{i}" }
r = mode == "cluster" ? Redis.new(cluster: urls) : Redis.new(url: urls[0])
if alone == "1" && mode == "single"
  r.mset(*keys[count / 2..].flat_map { |k| [k, "v"] })
  r.multi { |m| keys[0...count / 2].each { |k| m.set(k, "v") } }
else
  keys.each { |k| r.set(k, "v") }
end
r.scan_each(match: "#{prefix}*", count: 50) { |k| puts "key #{k}" }
puts "size #{r.dbsize}"
