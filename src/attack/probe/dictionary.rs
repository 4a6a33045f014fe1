//! Values that a secret can have: what the attacker tries, and what the victim's forms are filled with.
//!
//! Common given names, family names and cities of several languages, in the spelling of English texts.

/// The values of one list.
pub(super) fn values(list: &'static str) -> Vec<&'static str> {
    list.split(", ").collect()
}

/// Given names.
pub(super) const FIRST_NAMES: &str = "\
    James, Mary, John, Patricia, Robert, Jennifer, Michael, Linda, William, Elizabeth, David, Barbara, Richard, \
    Susan, Joseph, Jessica, Thomas, Sarah, Charles, Karen, Christopher, Lisa, Daniel, Nancy, Matthew, Betty, \
    Anthony, Margaret, Mark, Sandra, Donald, Ashley, Steven, Kimberly, Paul, Emily, Andrew, Donna, Joshua, \
    Michelle, Kenneth, Carol, Kevin, Amanda, Brian, Dorothy, George, Melissa, Timothy, Deborah, Ronald, \
    Stephanie, Edward, Rebecca, Jason, Sharon, Jeffrey, Laura, Ryan, Cynthia, Jacob, Kathleen, Gary, Amy, \
    Nicholas, Angela, Eric, Shirley, Jonathan, Anna, Stephen, Brenda, Larry, Pamela, Justin, Emma, Scott, Nicole, \
    Brandon, Helen, Benjamin, Samantha, Samuel, Katherine, Gregory, Christine, Alexander, Debra, Frank, Rachel, \
    Patrick, Carolyn, Raymond, Janet, Jack, Catherine, Dennis, Maria, Jerry, Heather, Tyler, Diane, Aaron, Ruth, \
    Jose, Julie, Adam, Olivia, Nathan, Joyce, Henry, Virginia, Zachary, Victoria, Douglas, Kelly, Peter, Lauren, \
    Kyle, Christina, Noah, Joan, Ethan, Evelyn, Jeremy, Judith, Walter, Megan, Christian, Andrea, Keith, Cheryl, \
    Roger, Hannah, Terry, Jacqueline, Austin, Martha, Sean, Gloria, Gerald, Teresa, Carl, Ann, Harold, Sara, \
    Dylan, Madison, Arthur, Frances, Lawrence, Kathryn, Jordan, Janice, Jesse, Jean, Bryan, Abigail, Billy, \
    Alice, Bruce, Julia, Gabriel, Judy, Joe, Sophia, Logan, Grace, Alan, Denise, Juan, Amber, Albert, Doris, \
    Willie, Marilyn, Elijah, Danielle, Wayne, Beverly, Randy, Isabella, Vincent, Theresa, Mason, Diana, Roy, \
    Natalie, Ralph, Brittany, Bobby, Charlotte, Russell, Marie, Bradley, Kayla, Philip, Alexis, Eugene, Lori, \
    Oliver, Lucas, Leon, Felix, Hugo, Oscar, Max, Simon, Martin, Stefan, Klaus, Dieter, Jurgen, Wolfgang, Heinz, \
    Karl, Ludwig, Otto, Fritz, Ingrid, Ursula, Heike, Sabine, Petra, Monika, Renate, Gisela, Greta, Hilda, \
    Astrid, Freya, Sigrid, Lars, Sven, Nils, Bjorn, Erik, Anders, Mikkel, Jens, Soren, Pierre, Jacques, Antoine, \
    Luc, Marcel, Olivier, Thierry, Yves, Claire, Camille, Chloe, Manon, Amelie, Elise, Margaux, Brigitte, \
    Giovanni, Marco, Luca, Matteo, Alessandro, Francesco, Giulia, Chiara, Francesca, Bianca, Carlo, Paolo, \
    Carlos, Luis, Miguel, Javier, Diego, Pablo, Fernando, Alejandro, Sofia, Lucia, Carmen, Elena, Pilar, Rosa, \
    Isabel, Ines, Joao, Pedro, Tiago, Rui, Beatriz, Ivan, Dmitri, Sergei, Boris, Vladimir, Mikhail, Nikolai, \
    Oleg, Igor, Yuri, Olga, Natasha, Svetlana, Tatiana, Irina, Ludmila, Katarina, Jana, Pavel, Tomas, Jiri, \
    Piotr, Marek, Agnieszka, Zofia, Istvan, Laszlo, Zoltan, Attila, Andrei, Mihai, Elif, Mehmet, Mustafa, Ahmed, \
    Mohammed, Ali, Hassan, Hussein, Omar, Khalid, Yusuf, Ibrahim, Fatima, Aisha, Zainab, Layla, Amina, Mariam, \
    Samira, Noor, Karim, Tariq, Rashid, Salman, Imran, Bilal, Raj, Ravi, Sanjay, Anil, Vijay, Arjun, Rahul, Amit, \
    Priya, Anita, Sunita, Lakshmi, Deepa, Kavita, Meera, Pooja, Neha, Wei, Ming, Jun, Hiroshi, Kenji, Takeshi, \
    Yuki, Akira, Satoshi, Haruto, Naoko, Keiko, Yoko, Sakura, Minh, Linh, Thanh, Kwame, Kofi, Ama, Chinedu, \
    Ngozi, Adaeze, Oluwaseun, Tunde, Folasade, Thabo, Sipho, Nomsa, Tendai, Farai, Leila, Nadia, Yasmin, Rania, \
    Dalia, Miriam, Esther, Naomi, Leah, Judah, Levi, Moses, Isaac, Abraham, Caleb, Gideon, Ezra, Silas, Rufus, \
    Percy, Alfie, Archie, Harry, Freddie, Barnaby, Rupert, Nigel, Trevor, Graham, Clive, Gareth, Rhys, Owen, \
    Bronwen, Niamh, Siobhan, Aoife, Ciara, Declan, Liam, Connor, Fiona, Morag, Hamish, Angus, Callum, Ewan, Iona, \
    Isla, Poppy, Daisy, Ivy, Hazel, Violet, Rose, Lily, Ruby, Pearl, Opal, Jade, Amelia, Ava, Mia, Zoe, Ella, \
    Nora, Stella, Luna, Penelope, Clara, Lydia, Josephine, Eleanor, Beatrice, Agnes, Edith, Mabel, Winifred, \
    Florence, Harriet, Matilda, Rosalind, Cecilia, Phoebe, Imogen, Tabitha, Ophelia, Cordelia";

/// Family names.
pub(super) const LAST_NAMES: &str = "\
    Smith, Johnson, Williams, Brown, Jones, Garcia, Miller, Davis, Rodriguez, Martinez, Hernandez, Lopez, \
    Gonzalez, Wilson, Anderson, Thomas, Taylor, Moore, Jackson, Martin, Lee, Perez, Thompson, White, Harris, \
    Sanchez, Clark, Ramirez, Lewis, Robinson, Walker, Young, Allen, King, Wright, Scott, Torres, Nguyen, Hill, \
    Flores, Green, Adams, Nelson, Baker, Hall, Rivera, Campbell, Mitchell, Carter, Roberts, Gomez, Phillips, \
    Evans, Turner, Diaz, Parker, Cruz, Edwards, Collins, Reyes, Stewart, Morris, Morales, Murphy, Cook, Rogers, \
    Gutierrez, Ortiz, Morgan, Cooper, Peterson, Bailey, Reed, Kelly, Howard, Ramos, Kim, Cox, Ward, Richardson, \
    Watson, Brooks, Chavez, Wood, James, Bennett, Gray, Mendoza, Ruiz, Hughes, Price, Alvarez, Castillo, Sanders, \
    Patel, Myers, Long, Ross, Foster, Jimenez, Powell, Jenkins, Perry, Russell, Sullivan, Bell, Coleman, Butler, \
    Henderson, Barnes, Fisher, Vasquez, Simmons, Graham, Murray, Ford, Hamilton, Griffin, Wallace, Moreno, West, \
    Cole, Hayes, Bryant, Herrera, Gibson, Ellis, Tran, Medina, Aguilar, Stevens, Freeman, Webb, Tucker, Burns, \
    Crawford, Schmidt, Schneider, Fischer, Weber, Meyer, Wagner, Becker, Schulz, Hoffmann, Keller, Dubois, \
    Moreau, Laurent, Lefebvre, Fontaine, Rossi, Ferrari, Bianchi, Romano, Ricci, Marino, Silva, Santos, Oliveira, \
    Pereira, Costa, Almeida, Ivanov, Petrov, Smirnov, Kuznetsov, Volkov, Novak, Kowalski, Nowak, Horvath, Nagy, \
    Popescu, Yilmaz, Kaya, Demir, Khan, Ahmed, Hussain, Malik, Sharma, Singh, Kumar, Gupta, Mehta, Reddy, Iyer, \
    Wang, Zhang, Chen, Liu, Yang, Huang, Zhao, Wu, Tanaka, Suzuki, Sato, Watanabe, Yamamoto, Nakamura, Okafor, \
    Adeyemi, Mensah, Dlamini, Moyo, Hansen, Olsen, Larsen, Berg, Lindgren, Johansson, Nilsson, Virtanen, Jansen, \
    Visser, Bakker";

/// Cities.
pub(super) const CITIES: &str = "\
    London, Manchester, Birmingham, Leeds, Glasgow, Edinburgh, Liverpool, Bristol, Sheffield, Cardiff, Belfast, \
    Leicester, Nottingham, Newcastle, Brighton, Plymouth, Southampton, Oxford, Cambridge, York, Exeter, Norwich, \
    Aberdeen, Dundee, Inverness, Swansea, Dublin, Cork, Galway, Limerick, Paris, Lyon, Marseille, Toulouse, Nice, \
    Nantes, Strasbourg, Bordeaux, Lille, Rennes, Grenoble, Berlin, Hamburg, Munich, Cologne, Frankfurt, \
    Stuttgart, Dresden, Leipzig, Hanover, Bremen, Nuremberg, Vienna, Graz, Salzburg, Zurich, Geneva, Basel, Bern, \
    Lausanne, Brussels, Antwerp, Ghent, Bruges, Amsterdam, Rotterdam, Utrecht, Eindhoven, Luxembourg, Rome, \
    Milan, Naples, Turin, Florence, Venice, Bologna, Palermo, Genoa, Verona, Madrid, Barcelona, Valencia, \
    Seville, Bilbao, Malaga, Zaragoza, Granada, Lisbon, Porto, Copenhagen, Aarhus, Stockholm, Gothenburg, Malmo, \
    Uppsala, Oslo, Bergen, Trondheim, Helsinki, Tampere, Turku, Reykjavik, Warsaw, Krakow, Gdansk, Wroclaw, \
    Poznan, Lodz, Prague, Brno, Bratislava, Budapest, Debrecen, Bucharest, Timisoara, Sofia, Plovdiv, Belgrade, \
    Zagreb, Split, Ljubljana, Sarajevo, Skopje, Tirana, Athens, Thessaloniki, Istanbul, Ankara, Izmir, Moscow, \
    Kazan, Novosibirsk, Kyiv, Kharkiv, Odessa, Lviv, Minsk, Vilnius, Kaunas, Riga, Tallinn, Tbilisi, Yerevan, \
    Baku, Cairo, Alexandria, Tunis, Algiers, Casablanca, Rabat, Marrakesh, Tripoli, Lagos, Abuja, Accra, Kumasi, \
    Dakar, Nairobi, Mombasa, Kampala, Kigali, Addis Ababa, Khartoum, Johannesburg, Cape Town, Durban, Pretoria, \
    Harare, Lusaka, Maputo, Luanda, Kinshasa, Jerusalem, Haifa, Beirut, Damascus, Amman, Baghdad, Basra, Tehran, \
    Isfahan, Riyadh, Jeddah, Dubai, Doha, Muscat, Kuwait City, Kabul, Karachi, Lahore, Islamabad, Delhi, Mumbai, \
    Kolkata, Chennai, Bangalore, Hyderabad, Pune, Jaipur, Lucknow, Dhaka, Colombo, Kathmandu, Bangkok, Hanoi, \
    Saigon, Phnom Penh, Yangon, Singapore, Kuala Lumpur, Penang, Jakarta, Bandung, Surabaya, Manila, Cebu, \
    Beijing, Shanghai, Guangzhou, Shenzhen, Chengdu, Wuhan, Nanjing, Tianjin, Hong Kong, Taipei, Seoul, Busan, \
    Tokyo, Osaka, Kyoto, Nagoya, Sapporo, Fukuoka, Hiroshima, Sydney, Melbourne, Brisbane, Perth, Adelaide, \
    Canberra, Hobart, Darwin, Auckland, Wellington, Christchurch, New York, Boston, Chicago, Los Angeles, \
    San Francisco, San Diego, Seattle, Portland, Denver, Dallas, Houston, Austin, Phoenix, Philadelphia, \
    Baltimore, Detroit, Cleveland, Pittsburgh, Atlanta, Miami, Orlando, Tampa, New Orleans, Memphis, Nashville, \
    Minneapolis, Milwaukee, St Louis, Kansas City, Salt Lake City, Las Vegas, Sacramento, Oakland, Honolulu, \
    Anchorage, Toronto, Montreal, Vancouver, Ottawa, Calgary, Edmonton, Winnipeg, Quebec, Halifax, Mexico City, \
    Guadalajara, Monterrey, Tijuana, Havana, Kingston, San Juan, Panama City, Bogota, Medellin, Cali, Quito, \
    Guayaquil, Lima, Cusco, La Paz, Santiago, Buenos Aires, Cordoba, Rosario, Montevideo, Asuncion, \
    Rio de Janeiro, Sao Paulo, Brasilia, Salvador, Recife, Fortaleza, Caracas";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_lists_are_long_and_hold_every_value_once() {
        for (list, fewest) in [(FIRST_NAMES, 400), (LAST_NAMES, 200), (CITIES, 280)] {
            let all = values(list);
            assert!(all.len() >= fewest, "{}", all.len());
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            assert!(all.iter().all(|v| !v.is_empty() && v.trim() == *v && v.starts_with(char::is_uppercase)));
        }
    }
}
