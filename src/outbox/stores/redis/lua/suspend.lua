redis.call('HSET', STOPPED, args.name, args.said)
return { now }
