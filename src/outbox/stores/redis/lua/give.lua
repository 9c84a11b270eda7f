-- A batch that comes from another store, all or none, but for what is here already: {"given", now, news, {ids of these}},
-- {"full", messages, bytes, …}, or {"changed"} where another batch was given meanwhile.
-- ARGV[2] is what is noted of the last one, as read; then of each message its row, envelope, content, history and dialogue.
local field = 'given:' .. args.source
if (redis.call('HGET', META, field) or '') ~= ARGV[2] then return { 'changed' } end

local refused, fresh, remembered = {}, {}, {}
local new_messages, new_bytes = 0, 0
for place, text in ipairs(fetch(ROW, args.ids)) do
  local id = args.ids[place]
  if text and not is_gone(text) then
    refused[#refused + 1] = id
  else
    local row = parse(ARGV[5 * place - 2])
    fresh[#fresh + 1] = { id, row, place }
    if text then remembered[#remembered + 1] = { id, text } end
    if queued(row) then new_messages, new_bytes = new_messages + 1, new_bytes + row.size end
  end
end

local full = too_full(new_messages, new_bytes)
if full then return full end

-- Where there is nothing to store there is room for that.
if #fresh == 0 then go_on_when_full() end
for _, each in ipairs(fresh) do
  local id, row, place = unpack(each)
  local first = 5 * place - 2
  write('ZADD', IDS, '0', id)
  write('HSET', ROW, id, ARGV[first])
  write('HSET', ENVELOPE, id, ARGV[first + 1])
  write('HSET', CONTENT, id, ARGV[first + 2])
  if ARGV[first + 3] ~= '' then write('HSET', PAST, id, ARGV[first + 3]) end
  if ARGV[first + 4] ~= '' then write('HSET', PAST, id .. '!', ARGV[first + 4]) end
  attach(id, row)
end
if not format then write('HSET', META, 'format', '1') end
for _, each in ipairs(fresh) do write('HSET', META, 'queue:' .. each[2].queue, '1') end
local note = { args.name }
for _, id in ipairs(refused) do note[#note + 1] = id end
for _, id in ipairs(args.unreadable) do note[#note + 1] = id end
write('HSET', META, field, cjson.encode(note))
-- Behind all that asks for memory: who writes at all is let go on.
for _, each in ipairs(remembered) do write('ZREM', GONE, each[1]) end
if not pcall(flush, call) then
  -- None of it, then.
  pending, gathered = {}, {}
  if not wrote then return met end
  for _, each in ipairs(fresh) do
    local id, row = unpack(each)
    for _, key in ipairs({ ROW, ENVELOPE, CONTENT }) do write('HDEL', key, id) end
    write('HDEL', PAST, id, id .. '!')
    write('ZREM', IDS, id)
    detach(id, row)
  end
  for _, each in ipairs(remembered) do
    local id, text = unpack(each)
    write('HSET', ROW, id, text)
    write('ZADD', GONE, string.match(text, '^\t%x*\t(%d+)'), id)
  end
  if ARGV[2] == '' then write('HDEL', META, field) else write('HSET', META, field, ARGV[2]) end
  flush(redis.pcall)
  return met
end
note_load()
return { 'given', now, #fresh > 0 and tell() or '', refused }
