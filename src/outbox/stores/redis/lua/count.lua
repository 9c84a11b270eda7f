-- The next so many ids behind args.after, grouped; and the last id.
local after = args.after == '' and '-' or '(' .. args.after
local ids = redis.call('ZRANGEBYLEX', IDS, after, '+', 'LIMIT', 0, args.many)
return { now, ids[#ids] or '', grouped(ids) }
