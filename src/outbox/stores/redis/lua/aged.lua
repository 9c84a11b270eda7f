-- The oldest of a state that were settled at args.since or before, with their rows.
local ids = redis.call('ZRANGEBYSCORE', DONE[args.state], '-inf', args.since, 'LIMIT', 0, args.limit)
return { now, ids, fetch(ROW, ids) }
