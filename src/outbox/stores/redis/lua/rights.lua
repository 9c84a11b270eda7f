-- The first of the commands in the arguments that may not be used here, {number from 0, what the server says of it}, or
-- nothing; each is tried with KEYS[1], where nothing is, and leaves nothing there.
for place, command in ipairs(cjson.decode(ARGV[1])) do
  for at, word in ipairs(command) do
    if word == 'KEY' then command[at] = KEYS[1] end
  end
  local said = redis.pcall(unpack(command))
  if type(said) == 'table' and said.err then return { tostring(place - 1), said.err } end
end
return {}
