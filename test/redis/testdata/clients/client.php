<?php
// usage: php client.php phpredis MODE ADDRESS,... PREFIX COUNT ALONE; see client.js
[, , $mode, $addresses, $prefix, $count, $alone] = $argv;
$nodes = explode(',', $addresses);
$keys = array_map(fn ($i) => $prefix . $i, range(0, $count - 1));
if ($mode == 'cluster') {
    $r = new RedisCluster(null, $nodes);
} else {
    [$host, $port] = explode(':', $nodes[0]);
    $r = new Redis();
    $r->connect($host, (int) $port);
}
if ($alone == '1' && $mode == 'single') {
    if (!$r->mset(array_fill_keys(array_slice($keys, $count / 2), 'v'))) {
        exit(1);
    }
    $m = $r->multi();
    foreach (array_slice($keys, 0, $count / 2) as $k) {
        $m->set($k, 'v');
    }
    if (in_array(false, $m->exec(), true)) {
        exit(1);
    }
} else {
    foreach ($keys as $k) {
        $r->set($k, 'v') || exit(1);
    }
}
$size = 0;
foreach ($mode == 'cluster' ? $r->_masters() : [null] as $master) {
    $of = $master ? [$master] : [];
    $cursor = null;
    do {
        $page = $master ? $r->scan($cursor, $master, $prefix . '*', 50) : $r->scan($cursor, $prefix . '*', 50);
        foreach ($page ?: [] as $k) {
            echo "key $k\n";
        }
    } while ($cursor > 0);
    $size += $r->dbsize(...$of);
}
echo "size $size\n";
