-- The ids behind the place args.at whose lease in a queue never runs out, with their rows.
local ids = {}
for _, queue in ipairs(args.queues) do
  ids = redis.call('ZRANGEBYSCORE', LANE[queue].scheduled, FOREVER, '+inf', 'LIMIT', args.at, args.many)
end
return { now, ids, fetch(ROW, ids) }
