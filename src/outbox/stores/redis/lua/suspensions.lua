return { now, redis.call('HGETALL', STOPPED) }
