-- The next so many ids behind args.after with their rows and envelopes.
local after = args.after == '' and '-' or '(' .. args.after
local ids = redis.call('ZRANGEBYLEX', IDS, after, '+', 'LIMIT', 0, args.many)
return { now, ids, fetch(ROW, ids), args.envelopes and fetch(ENVELOPE, ids) or {} }
