-- Ids that are known from now on of messages that came to their end in another store: args.known are {id, digest, settled}.
local since, ids = NOW - tonumber(args.remember), {}
for place, each in ipairs(args.known) do ids[place] = each[1] end
for place, text in ipairs(fetch(ROW, ids)) do
  local id, digest, settled = unpack(args.known[place])
  -- Of one that has left: that it came to its end is known from now on.
  local was, at = string.match(text or '', GONE_AWAY)
  if tonumber(settled) > since and (was or not text) then
    if at and tonumber(at) > tonumber(settled) then settled = at end
    write('ZADD', GONE, settled, id)
    write('HSET', ROW, id, '\t' .. (was or digest) .. '\t' .. settled)
  end
end
flush()
-- Also where all were known: who asks waits until this is on the disk, and so is all before it.
redis.call('HSET', META, 'lasting', '1')
return { now }
